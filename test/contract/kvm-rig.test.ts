import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { afterEach, describe, expect, it } from "vitest";
import { identifyProcess, isAlive, waitUntil } from "../../src/setup/processes.mjs";
import { startGuest, waitForSerial } from "../rigs/kvm/guest.ts";
import { type KvmHost, type KvmHostOptions, startKvmHost } from "../rigs/kvm/kvm-host.ts";
import { sweepStaleRigs } from "../rigs/kvm/rig-dirs.ts";

// Two boots without acceleration, on a machine that is busy with other tests.
const BOOTS = { timeout: 300_000 };

const hosts: KvmHost[] = [];

async function start(options?: KvmHostOptions): Promise<KvmHost> {
  const host = await startKvmHost(options);
  hosts.push(host);
  return host;
}

afterEach(async () => {
  await Promise.all(hosts.splice(0).map((host) => host.stop()));
});

/** Links such as "net:[4026532000]" of the namespaces in which a process lives. */
function namespacesOf(pid: number): string[] {
  return ["net", "mnt", "uts", "pid", "ipc", "cgroup"].map((kind) =>
    readlinkSync(`/proc/${String(pid)}/ns/${kind}`),
  );
}

/** Every namespace in which any process lives. */
function livingNamespaces(): Set<string> {
  const pids = readdirSync("/proc").filter((entry) => /^\d+$/.test(entry));
  const found = pids.flatMap((pid) => {
    try {
      return namespacesOf(Number(pid));
    } catch {
      return []; // ended meanwhile, or a zombie
    }
  });
  return new Set(found);
}

function cgroupsNamed(name: string): string[] {
  const parents = [
    "/sys/fs/cgroup",
    ...readdirSync("/sys/fs/cgroup").map((entry) => join("/sys/fs/cgroup", entry)),
  ];
  return parents.map((parent) => join(parent, name)).filter((path) => existsSync(path));
}

function expectNothingLeft(host: KvmHost, itsNamespaces: readonly string[]): void {
  const living = livingNamespaces();
  expect(itsNamespaces.filter((namespace) => living.has(namespace))).toEqual([]);
  expect(readFileSync("/proc/self/mountinfo", "utf8")).not.toContain(host.dir);
  expect(cgroupsNamed(host.name)).toEqual([]);
  expect(existsSync(host.dir)).toBe(false);
}

describe("an emulated KVM host", () => {
  it("has a running libvirtd with a pool and a network, and hides /dev/kvm", async () => {
    const host = await start();
    expect(await host.virsh(["hostname"])).toBe(host.name);
    expect(await host.virsh(["pool-list", "--name"])).toContain("default");
    expect(await host.virsh(["net-list", "--name"])).toContain("default");
    expect(await host.virsh(["domcapabilities", "--virttype", "qemu"])).toContain("<domain>qemu</domain>");
    await expect(host.virsh(["domcapabilities", "--virttype", "kvm"])).rejects.toThrow(
      "'kvm' is not supported",
    );
    expect(Buffer.byteLength(host.socketPath)).toBeLessThan(107);
  });

  it("offers libvirt's mock driver on the same socket", async () => {
    const host = await start();
    const { stdout } = await execa("virsh", ["-q", "-c", host.testUri, "list", "--name"]);
    expect(stdout.trim()).toBe("test");
  });

  it("can be stopped, killed, paused and started again", async () => {
    const host = await start();
    const first = host.libvirtdPid();
    await host.stopLibvirtd("SIGKILL");
    expect(identifyProcess(first)).toBeUndefined();
    expect(() => host.libvirtdPid()).toThrow("does not run");
    await host.startLibvirtd();
    expect(host.libvirtdPid()).not.toBe(first);

    host.pauseLibvirtd();
    const hanging = host.virsh(["hostname"]);
    const outcome = await Promise.race([
      hanging,
      new Promise((resolve) => setTimeout(resolve, 1000, "silent")),
    ]);
    expect(outcome).toBe("silent");
    host.continueLibvirtd();
    expect(await hanging).toBe(host.name);
  });

  it("answers over TLS, TCP and ssh with the credentials it gives out", async () => {
    const host = await start({ tls: true, tcp: true, ssh: true });
    const { tls, ssh } = host.credentials;
    if (tls === undefined || ssh === undefined) throw new Error("no credentials");
    const keys = join(host.dir, "virsh-keys");
    mkdirSync(keys);
    writeFileSync(join(keys, "cacert.pem"), tls.caCertificate);
    writeFileSync(join(keys, "clientcert.pem"), tls.clientCertificate);
    writeFileSync(join(keys, "clientkey.pem"), tls.clientKey, { mode: 0o600 });
    const { stdout: overTls } = await execa("virsh", [
      "-q",
      "-c",
      `${host.tlsUri ?? ""}?pkipath=${keys}`,
      "hostname",
    ]);
    expect(overTls.trim()).toBe(host.name);
    const { stdout: overTcp } = await execa("virsh", ["-q", "-c", host.tcpUri ?? "", "hostname"]);
    expect(overTcp.trim()).toBe(host.name);

    const scanned = await execa("ssh-keyscan", ["-t", "ed25519", host.address ?? ""]);
    expect(scanned.stdout).toContain(ssh.knownHosts.trim());
    const files = [
      "-o",
      "BatchMode=yes",
      "-o",
      "StrictHostKeyChecking=yes",
      "-i",
      join(host.dir, "ssh/client"),
    ];
    const known = ["-o", `UserKnownHostsFile=${join(host.dir, "ssh/known_hosts")}`];
    const { stdout: overSsh } = await execa("ssh", [
      ...files,
      ...known,
      `root@${host.address ?? ""}`,
      "hostname",
    ]);
    expect(overSsh).toBe(host.name);
  });

  it.each(["kernel", "disk"] as const)("boots the small guest from its %s", BOOTS, async (boot) => {
    const host = await start();
    await startGuest(host, "tiny", boot);
    const [, first] = await waitForSerial(host, "tiny", /DROVER-GUEST-UP boot=([0-9a-f-]{36})\r?\n/);
    const [, address] = await waitForSerial(host, "tiny", /DROVER-GUEST-IP eth0 (\S+)\r?\n/);
    expect(await host.virsh(["net-dhcp-leases", "default"])).toContain(`${address ?? ""}/24`);

    await host.virsh(["send-key", "tiny", "KEY_LEFTCTRL", "KEY_LEFTALT", "KEY_DELETE"]);
    const [, second] = await waitForSerial(host, "tiny", /DOWN[^]*DROVER-GUEST-UP boot=([0-9a-f-]{36})\r?\n/);
    expect(second).not.toBe(first);
    await waitForSerial(host, "tiny", /DOWN[^]*DROVER-GUEST-IP eth0/);

    const qemu = identifyProcess(host.qemuPid("tiny"));
    if (qemu === undefined) throw new Error("QEMU does not run");
    await host.virsh(["shutdown", "tiny", "--mode", "acpi"]);
    await waitForSerial(host, "tiny", /DOWN[^]*DOWN/);
    // libvirt says so a moment after QEMU has ended.
    const isOff = async (): Promise<boolean> => (await host.virsh(["domstate", "tiny"])) === "shut off";
    await waitUntil("the guest is off", isOff, { timeoutSeconds: 60 });
    expect(isAlive(qemu)).toBe(false);
  });

  it("runs beside others and leaves nothing behind", BOOTS, async () => {
    const [one, other] = await Promise.all([start(), start({ tcp: true })]);
    expect(await one.virsh(["hostname"])).not.toBe(await other.virsh(["hostname"]));
    const namespaces = [one, other].map((host) => namespacesOf(host.libvirtdPid()));
    expect(new Set(namespaces.flat()).size).toBe(12);
    const { stdout: route } = await execa("ip", ["-o", "route", "get", other.address ?? ""]);
    const link = join("/sys/class/net", / dev (\S+)/.exec(route)?.[1] ?? "none");
    expect(existsSync(link)).toBe(true);
    await Promise.all([one, other].map((host) => startGuest(host, "tiny", "kernel")));
    await Promise.all([one, other].map((host) => waitForSerial(host, "tiny", /DROVER-GUEST-UP/)));

    await Promise.all(hosts.splice(0).map((host) => host.stop()));
    expectNothingLeft(one, namespaces[0] ?? []);
    expectNothingLeft(other, namespaces[1] ?? []);
    expect(existsSync(link)).toBe(false);
  });

  it("ends with the process that started it, and the next one sweeps up its directory", async () => {
    const script = `
      const { startKvmHost } = await import(${JSON.stringify(new URL("../rigs/kvm/kvm-host.ts", import.meta.url).href)});
      const host = await startKvmHost({ tcp: true });
      console.log(JSON.stringify({ dir: host.dir, name: host.name, pid: host.libvirtdPid() }));
      setInterval(() => undefined, 1000);`;
    const child = spawn(process.execPath, ["--input-type=module-typescript", "-e", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const line = await new Promise<string>((resolve) =>
      child.stdout.once("data", (data: Buffer) => {
        resolve(data.toString());
      }),
    );
    const { dir, name, pid } = JSON.parse(line) as { dir: string; name: string; pid: number };
    const libvirtd = identifyProcess(pid);
    if (libvirtd === undefined) throw new Error("its libvirtd does not run");
    sweepStaleRigs();
    expect(existsSync(dir)).toBe(true);

    child.kill("SIGKILL");
    await waitUntil("its libvirtd ends", () => !isAlive(libvirtd), { timeoutSeconds: 30 });
    await waitUntil(
      "its directory is swept up",
      () => {
        sweepStaleRigs();
        return !existsSync(dir);
      },
      { timeoutSeconds: 30 },
    );
    expect(cgroupsNamed(name)).toEqual([]);
  });
});
