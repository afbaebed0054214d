import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { execa } from "execa";
import { afterEach, describe, expect, it } from "vitest";
import { identifyProcess, isAlive, waitUntil } from "../../src/setup/processes.mjs";
import { startXenGuest, waitForXenConsole } from "../rigs/xen/guest.ts";
import {
  startXenHost,
  sweepStaleXenHosts,
  type XenHostOptions,
  type XenRigHost,
} from "../rigs/xen/xen-host.ts";

// A host, and a guest's boot in it, on a machine that is busy with other tests.
const BOOTS = { timeout: 600_000 };

const hosts: XenRigHost[] = [];

async function start(options?: XenHostOptions): Promise<XenRigHost> {
  const host = await startXenHost(options);
  hosts.push(host);
  return host;
}

afterEach(async () => {
  await Promise.all(hosts.splice(0).map((host) => host.stop()));
});

/** Arguments of ssh for somebody who knows nothing but what the host gives out. */
function sshArgs(host: XenRigHost): string[] {
  const [key, known] = [join(host.dir, "given-key"), join(host.dir, "given-known-hosts")];
  writeFileSync(key, host.privateKey, { mode: 0o600 });
  writeFileSync(known, host.knownHosts);
  const options = ["-F", "none", "-i", key, "-o", `UserKnownHostsFile=${known}`];
  const strict = ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"];
  return [...options, ...strict, "-p", String(host.sshPort), "root@127.0.0.1"];
}

async function waitUntilGone(host: XenRigHost, guest: string): Promise<void> {
  const isGone = async (): Promise<boolean> => (await host.run(["xl", "domid", guest])).exitCode !== 0;
  await waitUntil(`${guest} is gone`, isGone, { timeoutSeconds: 120, intervalMs: 500 });
}

describe("a Xen host in an emulated machine", () => {
  it("answers over ssh with the credentials it gives out", BOOTS, async () => {
    const host = await start({ name: "some-xen" });
    expect(host.uri).toBe(`xl+ssh://root@127.0.0.1:${String(host.sshPort)}`);
    const { stdout: info } = await execa("ssh", [...sshArgs(host), "xl info"]);
    expect(info).toMatch(new RegExp(`^xen_version +: ${host.version}\\.`, "m"));
    expect(info).toMatch(/^host +: some-xen$/m);
    expect(info).toMatch(/^virt_caps +: pv hvm /m);

    const { stdout: now } = await host.run(["date", "+%s"]);
    expect(Math.abs(Number(now) - Date.now() / 1000)).toBeLessThan(600);
    expect((await host.run(["sh", "-c", "exit 7"])).exitCode).toBe(7);
    expect((await host.run(["printf", "%s|", "a b", "'", '"$x"'])).stdout).toBe(`a b|'|"$x"|`);
    const { stdout: settings } = await host.run(["sshd", "-T"]);
    expect(settings).toMatch(/^maxsessions 10$/m);
  });

  it("runs a PV guest that obeys, and keeps what it writes on its console", BOOTS, async () => {
    const host = await start();
    await startXenGuest(host, "tiny", "pv");
    const [, first] = await waitForXenConsole(host, "tiny", /DROVER-GUEST-UP boot=([0-9a-f-]{36})\r?\n/);
    await waitForXenConsole(host, "tiny", /DROVER-GUEST-IP eth0 10\.0\.2\.\d+\r?\n/);

    expect((await host.run(["xl", "reboot", "tiny"])).exitCode).toBe(0);
    const again = /DOWN[^]*DROVER-GUEST-UP boot=([0-9a-f-]{36})\r?\n/;
    const [, second] = await waitForXenConsole(host, "tiny", again);
    expect(second).not.toBe(first);

    expect((await host.run(["xl", "shutdown", "tiny"])).exitCode).toBe(0);
    await waitForXenConsole(host, "tiny", /DOWN[^]*DOWN/);
    await waitUntilGone(host, "tiny");
  });

  it("can fall silent, and lose its connections", BOOTS, async () => {
    const host = await start();
    const open = execa("ssh", [...sshArgs(host), "echo here; exec sleep 1000"], { reject: false });
    await once(open.stdout, "data");

    host.pause();
    const hanging = host.run(["hostname"]);
    const outcome = await Promise.race([
      hanging,
      open,
      new Promise((resolve) => setTimeout(resolve, 1000, "silent")),
    ]);
    expect(outcome).toBe("silent");
    host.resume();
    expect((await hanging).stdout.trim()).toBe(host.name);

    host.cutConnections();
    const cut = await open;
    expect(cut.exitCode).toBe(255);
    expect(cut.stderr).toMatch(/reset|closed|broken pipe/i);
    // It was the connections only: the host is there, and lets others in.
    const { stdout } = await execa("ssh", [...sshArgs(host), "hostname"]);
    expect(stdout).toBe(host.name);
  });

  it("runs beside others and leaves nothing behind", BOOTS, async () => {
    const [one, other] = [await start(), await start()];
    const machineIds = await Promise.all([one, other].map((host) => host.run(["cat", "/etc/machine-id"])));
    expect(machineIds[0]?.stdout).not.toBe(machineIds[1]?.stdout);
    await one.run(["touch", "/root/mine"]);
    expect((await other.run(["test", "-e", "/root/mine"])).exitCode).toBe(1);

    await Promise.all(hosts.splice(0).map((host) => host.stop()));
    for (const host of [one, other]) {
      expect(existsSync(host.dir)).toBe(false);
      expect(identifyProcess(host.qemuPid)).toBeUndefined();
      const reaching = once(connect(host.sshPort, "127.0.0.1"), "connect");
      await expect(reaching).rejects.toThrow("ECONNREFUSED");
    }
  });

  it("ends with the process that started it, and the next one sweeps up its directory", BOOTS, async () => {
    const url = new URL("../rigs/xen/xen-host.ts", import.meta.url).href;
    const script = `
      const { startXenHost } = await import(${JSON.stringify(url)});
      const host = await startXenHost();
      console.log(JSON.stringify({ dir: host.dir, pid: host.qemuPid }));
      setInterval(() => undefined, 1000);`;
    const child = spawn(process.execPath, ["--input-type=module-typescript", "-e", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [line] = (await once(child.stdout, "data")) as [Buffer];
    const { dir, pid } = JSON.parse(line.toString()) as { dir: string; pid: number };
    const qemu = identifyProcess(pid);
    if (qemu === undefined) throw new Error("its QEMU does not run");
    sweepStaleXenHosts();
    expect(existsSync(dir)).toBe(true);

    child.kill("SIGKILL");
    await waitUntil("its QEMU ends", () => !isAlive(qemu), { timeoutSeconds: 30 });
    await waitUntil(
      "its directory is swept up",
      () => {
        sweepStaleXenHosts();
        return !existsSync(dir);
      },
      { timeoutSeconds: 30 },
    );
  });
});
