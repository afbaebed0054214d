import { randomBytes } from "node:crypto";
import { readFileSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import { execa } from "execa";
import { HOST_KEY_ALIAS } from "../../../src/setup/xen-host/dom0-ssh.mjs";
import { type XenVersion, xenVersionOf } from "../../../src/setup/xen-host/flavours.mjs";
import {
  MACHINE_MEMORY_MIB,
  type Machine,
  resumeState,
  startMachine,
} from "../../../src/setup/xen-host/machine.mjs";
import { waitForBoot } from "../../../src/setup/xen-host/warm-up.mjs";
import { buildXenHost, type XenHostFiles } from "../../../src/setup/xen-host.mjs";
import { isOwned, makeOwnedDir, ownedDirs } from "../owned-dirs.ts";
import { connectDom0, type Dom0 } from "./dom0.ts";
import { startRelay } from "./relay.ts";

export interface XenHostOptions {
  /** The host name inside; one of its own where left out. */
  readonly name?: string;
  /** Another size than the saved machine's: it is booted, which takes a minute or two, instead of resumed. */
  readonly memoryMib?: number;
  /** DROVER_TEST_XEN where left out, else 4.17. */
  readonly version?: XenVersion;
}

/** A real Xen host: Debian's Xen and dom0 in an emulated machine. */
export interface XenRigHost extends Dom0 {
  readonly name: string;
  readonly version: XenVersion;
  /** Its private directory: `console.log` is what Xen and dom0 write, `qemu.log` what QEMU does. */
  readonly dir: string;
  /** On 127.0.0.1: dom0's sshd, by way of a relay whose connections can be cut. `run` does not go there. */
  readonly sshPort: number;
  /** For Drover: `xl+ssh://root@127.0.0.1:<sshPort>`. */
  readonly uri: string;
  /** Text of the key that lets root in. */
  readonly privateKey: string;
  /** Text of a known_hosts file with dom0's key. */
  readonly knownHosts: string;
  /** Process of its machine. */
  readonly qemuPid: number;
  /** The host falls silent: it answers nothing, and no connection is closed. */
  pause(): void;
  resume(): void;
  /** Breaks every ssh connection to `sshPort` at once. */
  cutConnections(): void;
  /** Cuts the host's power and removes everything. */
  stop(): Promise<void>;
}

const PREFIX = "drover-xen-";

/** Starts a Xen host. It needs root and ends with this process at the latest. */
export async function startXenHost(options: XenHostOptions = {}): Promise<XenRigHost> {
  sweepStaleXenHosts();
  const version = options.version ?? xenVersionOf(process.env["DROVER_TEST_XEN"]);
  const files = await buildXenHost({ version });
  const dir = makeOwnedDir(PREFIX);
  const name = options.name ?? basename(dir).toLowerCase();
  const memoryMib = options.memoryMib ?? MACHINE_MEMORY_MIB;
  const machine = await powerOn(files, { dir, name, memoryMib });
  try {
    const { privateKeyFile, knownHostsFile } = files;
    const port = await machine.sshPort();
    const access = { port, privateKeyFile, knownHostsFile };
    if (memoryMib === MACHINE_MEMORY_MIB) await resumeState(machine, files.warmState);
    else await waitForBoot(machine, access);
    const dom0 = await connectDom0(access, dir);
    await makeItsOwn(dom0, name);
    const relay = await startRelay(port);
    return {
      ...{ name, version, dir, sshPort: relay.port, uri: `xl+ssh://root@127.0.0.1:${String(relay.port)}` },
      privateKey: readFileSync(privateKeyFile, "utf8"),
      knownHosts: knownHostsFor(readFileSync(knownHostsFile, "utf8"), relay.port),
      ...dom0,
      qemuPid: machine.pid,
      pause: machine.pause,
      resume: machine.resume,
      cutConnections: () => {
        relay.cut();
      },
      stop: async () => {
        await relay.close();
        await machine.end();
        rmSync(dir, { recursive: true, force: true });
      },
    };
  } catch (error) {
    await machine.end();
    rmSync(dir, { recursive: true, force: true });
    throw error;
  }
}

/** Removes what is left of hosts whose test process is gone; their machines ended with it. */
export function sweepStaleXenHosts(): void {
  for (const dir of ownedDirs(PREFIX)) if (!isOwned(dir)) rmSync(dir, { recursive: true, force: true });
}

async function powerOn(
  files: XenHostFiles,
  { dir, name, memoryMib }: { dir: string; name: string; memoryMib: number },
): Promise<Machine> {
  const isWarm = memoryMib === MACHINE_MEMORY_MIB;
  const disk = join(dir, "disk.qcow2");
  const base = isWarm ? files.warmDisk : files.disk;
  await execa("qemu-img", ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, disk]);
  const common = { name, dir, boot: files, disk, memoryMib };
  if (!isWarm) return startMachine(common);
  const memory = { file: files.warmMemory, shared: false };
  return startMachine({ ...common, memory, incoming: true });
}

/** Sets the clock, which stood still since the state was saved, and what tells this host from others. */
async function makeItsOwn(dom0: Dom0, name: string): Promise<void> {
  const now = (Date.now() / 1000).toFixed(3);
  const machineId = randomBytes(16).toString("hex");
  const script = 'date -s "@$1" && hostname "$2" && echo "$2" >/etc/hostname && echo "$3" >/etc/machine-id';
  const { exitCode, stderr } = await dom0.run(["sh", "-c", script, "sh", now, name, machineId]);
  if (exitCode !== 0) throw new Error(`dom0 does not take its name: ${stderr}`);
}

function knownHostsFor(line: string, port: number): string {
  return line.replace(HOST_KEY_ALIAS, `[127.0.0.1]:${String(port)}`);
}
