import { rmSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import type { Access } from "../../../src/setup/private-libvirt/configuration.mjs";
import { type Namespace, runInside } from "../../../src/setup/private-libvirt/namespace.mjs";
import {
  endProcess,
  findDaemon,
  preparePrivateLibvirt,
  removePrivateLibvirt,
  startDaemons,
  startLibvirtd,
  systemSocket,
  systemUri,
} from "../../../src/setup/private-libvirt/private-libvirt.mjs";
import { type ProcessIdentity, signalProcess } from "../../../src/setup/processes.mjs";
import { type Link, makeLink, removeLink } from "./link.ts";
import { makeRigDir, rigName, sweepStaleRigs } from "./rig-dirs.ts";
import { type SshCredentials, startSshd } from "./sshd.ts";
import { makeTlsKeys, type TlsCredentials } from "./tls-keys.ts";

/** Transports besides the unix socket; any of them gives the host an address which only this machine reaches. */
export interface KvmHostOptions {
  readonly tls?: boolean;
  readonly tcp?: boolean;
  readonly ssh?: boolean;
}

export interface KvmHostCredentials {
  readonly tls?: TlsCredentials;
  readonly ssh?: SshCredentials;
}

/**
 * An emulated KVM host: a real libvirtd and virtlogd in network, mount, UTS, IPC, process and cgroup namespaces of their
 * own, QEMU without acceleration, a pool and a NAT network named `default`.
 */
export interface KvmHost {
  /** Unique on the machine; the host name inside. */
  readonly name: string;
  /** Its private directory; `log/` holds the logs of its daemons, `log/qemu/` those of QEMU. */
  readonly dir: string;
  /** The directory of pool `default`, seen from outside; inside it is /var/lib/libvirt/images. */
  readonly poolDir: string;
  readonly socketPath: string;
  readonly uri: string;
  /** The same daemon's mock driver. Its state dies with its last connection. */
  readonly testUri: string;
  readonly address: string | undefined;
  readonly tlsUri: string | undefined;
  readonly tcpUri: string | undefined;
  readonly sshUri: string | undefined;
  readonly credentials: KvmHostCredentials;
  /** Runs virsh against the host and returns its output, without the newlines at its end. */
  virsh(args: readonly string[]): Promise<string>;
  /** Runs a program inside the namespaces and returns its output. */
  exec(program: string, args?: readonly string[]): Promise<string>;
  /** @throws Error when libvirtd does not run */
  libvirtdPid(): number;
  /** @throws Error when the domain has no QEMU */
  qemuPid(domainName: string): number;
  /** Ends libvirtd and waits until it is gone; guests live on. */
  stopLibvirtd(signal?: NodeJS.Signals): Promise<void>;
  startLibvirtd(): Promise<void>;
  pauseLibvirtd(): void;
  continueLibvirtd(): void;
  /** Ends and removes everything: guests, daemons, namespaces, links, cgroups, files. */
  stop(): Promise<void>;
}

/**
 * Starts an emulated KVM host. It takes about two seconds, needs root, and ends with this process at the latest.
 */
export async function startKvmHost(options: KvmHostOptions = {}): Promise<KvmHost> {
  sweepStaleRigs();
  const dir = makeRigDir();
  const name = rigName(dir);
  let namespace: Namespace | undefined;
  try {
    namespace = await preparePrivateLibvirt({
      dir,
      name,
      ownNetwork: true,
      lifeline: "pipe",
      maskKvm: true,
      network: { bridge: "virbr0", subnet: "192.168.122" },
    });
    return await startInside(namespace, dir, name, options);
  } catch (error) {
    if (namespace !== undefined) await removePrivateLibvirt(namespace, name);
    rmSync(dir, { recursive: true, force: true });
    throw error;
  }
}

async function startInside(
  namespace: Namespace,
  dir: string,
  name: string,
  options: KvmHostOptions,
): Promise<KvmHost> {
  const { tls = false, tcp = false, ssh = false } = options;
  const link = tls || tcp || ssh ? await makeLink(namespace) : undefined;
  const access =
    link !== undefined && (tls || tcp) ? { listen: { address: link.hostAddress, tcp, tls } } : {};
  const tlsKeys = tls && link !== undefined ? await makeTlsKeys(dir, name, link.hostAddress) : undefined;
  const [sshKeys] = await Promise.all([
    ssh && link !== undefined ? startSshd(namespace, dir, link.hostAddress) : undefined,
    startDaemons(namespace, dir, access),
  ]);
  const credentials = {
    ...(tlsKeys === undefined ? {} : { tls: tlsKeys }),
    ...(sshKeys === undefined ? {} : { ssh: sshKeys }),
  };
  return {
    ...describe(dir, name, link, options),
    credentials,
    ...controls({ namespace, dir, name, link, access }),
  };
}

type Description = Omit<KvmHost, "credentials" | keyof ReturnType<typeof controls>>;

function describe(dir: string, name: string, link: Link | undefined, options: KvmHostOptions): Description {
  const address = link?.hostAddress;
  const remote = (wanted: boolean | undefined, uri: string): string | undefined =>
    wanted === true ? uri : undefined;
  return {
    name,
    dir,
    poolDir: join(dir, "lib/images"),
    socketPath: systemSocket(dir),
    uri: systemUri(dir),
    testUri: `test+unix:///default?socket=${systemSocket(dir)}`,
    address,
    tlsUri: remote(options.tls, `qemu+tls://${address ?? ""}/system`),
    tcpUri: remote(options.tcp, `qemu+tcp://${address ?? ""}/system`),
    sshUri: remote(options.ssh, `qemu+ssh://root@${address ?? ""}/system`),
  };
}

interface Running {
  readonly namespace: Namespace;
  readonly dir: string;
  readonly name: string;
  readonly link: Link | undefined;
  readonly access: Access;
}

function controls({ namespace, dir, name, link, access }: Running) {
  const daemon = (what: string): ProcessIdentity => {
    const found = findDaemon(namespace, dir, what);
    if (found === undefined) throw new Error(`${what} does not run on ${name}`);
    return found;
  };
  return {
    virsh: async (args: readonly string[]): Promise<string> => {
      return (await execa("virsh", ["-q", "-c", systemUri(dir), ...args])).stdout.trimEnd();
    },
    exec: (program: string, args: readonly string[] = []): Promise<string> =>
      runInside(namespace, program, args),
    libvirtdPid: (): number => daemon("libvirtd").pid,
    qemuPid: (domainName: string): number => daemon(`qemu/${domainName}`).pid,
    stopLibvirtd: (signal: NodeJS.Signals = "SIGTERM"): Promise<void> =>
      endProcess(daemon("libvirtd"), signal),
    startLibvirtd: (): Promise<void> => startLibvirtd(namespace, dir, access),
    pauseLibvirtd: (): void => {
      signalProcess(daemon("libvirtd"), "SIGSTOP");
    },
    continueLibvirtd: (): void => {
      signalProcess(daemon("libvirtd"), "SIGCONT");
    },
    stop: async (): Promise<void> => {
      if (link !== undefined) await removeLink(link);
      await removePrivateLibvirt(namespace, name);
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
