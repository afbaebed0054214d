import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Duplex } from "node:stream";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import type { Call, HostConnection, HostFacts } from "../../src/hypervisors/hypervisor.ts";
import { OpenConsoles } from "../../src/hypervisors/xl/consoles.ts";
import { HostLink } from "../../src/hypervisors/xl/host-link.ts";
import { localRunner } from "../../src/hypervisors/xl/local-runner.ts";
import type { Runner } from "../../src/hypervisors/xl/runner.ts";
import { sshRunner } from "../../src/hypervisors/xl/ssh-runner.ts";
import { newId } from "../../src/lib/ids.ts";
import type { HostTransport } from "../../src/libvirt-rpc/index.ts";
import { type FakeXl, makeFakeXl } from "../fixtures/fake-xl.ts";
import { type LoopbackSshd, startLoopbackSshd } from "../fixtures/loopback-sshd.ts";
import { bootSector } from "../rigs/xen/boot-sector.ts";

// The consoles of a guest of QEMU's own, with plain programs in xl's place: the contract's chapters run on real Xen.

const HVM: HostFacts["guestTypes"] = [{ guestType: "hvm", capabilities: ["serialConsole", "vnc"] }];
const uuid = newId();
const path = process.env["PATH"] ?? "";
const call: Call = { signal: new AbortController().signal, timeoutMs: 30_000, beforeSend: () => undefined };

let root: string;
let xl: FakeXl;
let sshd: LoopbackSshd;
let guest: ChildProcess;
const cleanups: (() => Promise<void>)[] = [];

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "drover-xl-consoles-"));
  xl = makeFakeXl();
  process.env["PATH"] = `${xl.path}:${path}`;
  sshd = await startLoopbackSshd(xl.path);
  const home = join(root, "domains", uuid);
  mkdirSync(home, { recursive: true });
  writeFileSync(join(home, "domain.json"), "{}");
  writeFileSync(join(home, "domain.cfg"), "# type hvm\n# end\n");
  xl.add(uuid, "web", "-b----");
  const { terminal, port } = await startGuest();
  writeFileSync(
    join(xl.path, "xenstore-read"),
    `#!/bin/sh\ncase $1 in */1/serial/0/tty) echo ${terminal} ;; */1/console/vnc-port) echo ${port} ;; *) exit 1 ;; esac\n`,
  );
  chmodSync(join(xl.path, "xenstore-read"), 0o755);
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});
afterAll(async () => {
  guest.kill("SIGKILL");
  await sshd.stop();
  process.env["PATH"] = path;
  xl.stop();
  rmSync(root, { recursive: true, force: true });
});

/** A guest that writes back what it is sent, with its serial port on a terminal and its screen on the loopback. */
async function startGuest(): Promise<{ terminal: string; port: number }> {
  const disk = join(root, "guest.img");
  writeFileSync(disk, bootSector({ obeys: true }));
  const args = ["-accel", "tcg", "-m", "32", "-nodefaults", "-display", "none", "-serial", "pty"];
  const devices = ["-vga", "std", "-vnc", "127.0.0.1:0,to=999", "-drive", `file=${disk},format=raw`];
  const monitor = ["-monitor", "stdio"];
  guest = spawn("qemu-system-x86_64", [...args, ...devices, ...monitor], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  guest.stdin?.write("info vnc\n");
  let terminal: string | undefined;
  let port: number | undefined;
  if (guest.stdout === null) throw new Error("QEMU has no standard output");
  for await (const line of createInterface({ input: guest.stdout })) {
    terminal ??= /redirected to (\S+)/.exec(line)?.[1];
    port ??= Number(/Server: 127\.0\.0\.1:(\d+)/.exec(line)?.[1] ?? NaN) || undefined;
    if (terminal !== undefined && port !== undefined) return { terminal, port };
  }
  throw new Error("QEMU ended");
}

function transportOf(kind: string): HostTransport {
  if (kind === "local") return { kind: "unix", path: "" };
  const { port, privateKey, knownHosts } = sshd;
  return { kind: "ssh", host: "127.0.0.1", port, user: "root", privateKey, knownHosts };
}

/** What a connection to the host has of consoles. */
async function connect(
  kind: string,
): Promise<Required<Pick<HostConnection, "openSerialConsole" | "openVnc">>> {
  const transport = transportOf(kind);
  const login = (signal: AbortSignal): Promise<Runner> =>
    transport.kind === "ssh" ? sshRunner(transport, signal) : Promise.resolve(localRunner());
  const runner = await login(call.signal);
  const link = new HostLink({ runner, directory: root, fence: null });
  const consoles = new OpenConsoles(link, { login, transport, directory: root });
  cleanups.push(async () => {
    consoles.close();
    await runner.close();
  });
  const { openSerialConsole, openVnc } = consoles.members(HVM);
  if (openSerialConsole === undefined || openVnc === undefined) throw new Error("the host has consoles");
  return { openSerialConsole, openVnc };
}

let words = 0;

/** Types a word until the guest writes it back without its quotes. */
async function answers(stream: Duplex): Promise<void> {
  const word = `${(words += 1)}`;
  let text = "";
  const onData = (chunk: Buffer): void => void (text += chunk.toString("latin1"));
  stream.on("data", onData);
  stream.write(`a"word"${word}.`);
  await vi.waitFor(() => {
    expect(text).toContain(`aword${word}.`);
  }, 20_000);
  stream.off("data", onData);
}

describe.each(["local", "ssh"])("a guest's serial console: %s", (kind) => {
  it("carries what is typed and what is answered", async () => {
    const stream = await (await connect(kind)).openSerialConsole(uuid, { force: false }, call);
    await answers(stream);
  });

  it("is one client's at a time: a second one is refused, or takes it over", async () => {
    const host = await connect(kind);
    const first = await host.openSerialConsole(uuid, { force: false }, call);
    await expect(host.openSerialConsole(uuid, { force: false }, call)).rejects.toMatchObject({
      reason: "busy",
    });
    await answers(first);
    const [second] = await Promise.all([
      host.openSerialConsole(uuid, { force: true }, call),
      once(first.resume(), "close"),
    ]);
    await answers(second);
  });

  it("is free again when it was left", async () => {
    const host = await connect(kind);
    (await host.openSerialConsole(uuid, { force: false }, call)).destroy();
    await vi.waitFor(async () => {
      await answers(await host.openSerialConsole(uuid, { force: false }, call));
    }, 20_000);
  });

  it("is refused for a domain that is off, and for one that is not there", async () => {
    const host = await connect(kind);
    xl.set(uuid, "---s--");
    await expect(host.openSerialConsole(uuid, { force: false }, call)).rejects.toMatchObject({
      reason: "invalid-state",
    });
    await expect(host.openVnc(uuid, call)).rejects.toMatchObject({ reason: "invalid-state" });
    xl.set(uuid, "-b----");
    await expect(host.openSerialConsole(newId(), { force: false }, call)).rejects.toMatchObject({
      reason: "not-found",
    });
  });

  it("has a screen beside it, which greets", async () => {
    const stream = await (await connect(kind)).openVnc(uuid, call);
    const [greeting] = (await once(stream, "data")) as [Buffer];
    expect(greeting.toString("latin1")).toBe("RFB 003.008\n");
  });
});

describe("a guest that goes off", () => {
  it("ends its console", async () => {
    const stream = await (await connect("ssh")).openSerialConsole(uuid, { force: false }, call);
    const closed = once(stream.resume(), "close");
    guest.kill("SIGKILL");
    await closed;
  });
});
