import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readNamespace } from "../../src/setup/private-libvirt/namespace-state.mjs";
import { findDaemon } from "../../src/setup/private-libvirt/private-libvirt.mjs";
import { isAlive, type ProcessIdentity, waitUntil } from "../../src/setup/processes.mjs";
import { type GuestHost, startGuest, waitForSerial } from "../rigs/kvm/guest.ts";

// A boot without acceleration, on a machine that is busy with other tests.
const BOOTS = { timeout: 300_000 };

const COMMAND = fileURLToPath(new URL("../../src/setup/private-libvirt/command.mjs", import.meta.url));

// Stands for the machine's network: an own one, so that no bridge appears in the real one.
let machine: ChildProcess;
let dir: string;
let host: GuestHost;

function onMachine(program: string, args: readonly string[]): Promise<string> {
  const enter = ["--target", String(machine.pid), "--net", program, ...args];
  return execa("nsenter", enter).then(({ stdout }) => stdout);
}

async function start(): Promise<unknown> {
  return JSON.parse(await onMachine("node", [COMMAND, "start", dir, "root", "mask-kvm"]));
}

function stop(): Promise<string> {
  return onMachine("node", [COMMAND, "stop", dir]);
}

/** A process of the private libvirt by its pid file. */
function daemon(name: string): ProcessIdentity {
  const namespace = readNamespace(readFileSync(join(dir, "namespace.json"), "utf8"));
  const found = namespace === undefined ? undefined : findDaemon(namespace, dir, name);
  if (found === undefined) throw new Error(`${name} does not run`);
  return found;
}

beforeAll(async () => {
  dir = mkdtempSync("/tmp/drover-machine-");
  machine = spawn("unshare", ["--net", "sleep", "infinity"], { stdio: "ignore" });
  await waitUntil("the network is made", async () => !(await onMachine("ip", ["link"])).includes("eth0"), {
    timeoutSeconds: 30,
  });
  const virsh = async (args: readonly string[]): Promise<string> => {
    const uri = `qemu+unix:///system?socket=${join(dir, "run/libvirt-sock")}`;
    return (await execa("virsh", ["-q", "-c", uri, ...args])).stdout.trimEnd();
  };
  host = { dir, poolDir: join(dir, "lib/images"), virsh };
});

afterAll(async () => {
  await stop();
  machine.kill("SIGKILL");
  await once(machine, "exit");
  rmSync(dir, { recursive: true });
});

describe("a private libvirtd in the machine's network", () => {
  it("starts with a pool and a NAT network in which guests get addresses", BOOTS, async () => {
    expect(await start()).toEqual({ adopted: false });
    expect(await host.virsh(["pool-list", "--name"])).toContain("default");
    expect(await host.virsh(["net-list", "--name"])).toContain("default");
    await startGuest(host, "tiny", "kernel");
    await waitForSerial(host, "tiny", /DROVER-GUEST-IP eth0 192\.168\./);
  });

  it("is adopted with its guests by the next run", async () => {
    const before = await host.virsh(["domid", "tiny"]);
    expect(await start()).toEqual({ adopted: true });
    expect(await host.virsh(["domid", "tiny"])).toBe(before);
  });

  it("gets its libvirtd back when that was killed", async () => {
    const libvirtd = daemon("libvirtd");
    process.kill(libvirtd.pid, "SIGKILL");
    await waitUntil("libvirtd ends", () => !isAlive(libvirtd), { timeoutSeconds: 30 });
    expect(await start()).toEqual({ adopted: true });
    expect(await host.virsh(["domstate", "tiny"])).toBe("running");
  });

  it("stops like a machine that is powered off, and keeps what is defined", async () => {
    const running = ["libvirtd", "virtlogd", "qemu/tiny"].map(daemon);
    await stop();
    expect(running.filter(isAlive)).toEqual([]);
    expect(await onMachine("ip", ["-brief", "link"])).not.toContain("drv");
    await waitForSerial(host, "tiny", /DROVER-GUEST-DOWN/);

    expect(await start()).toEqual({ adopted: false });
    expect(await host.virsh(["domstate", "tiny"])).toBe("shut off");
  });

  it("starts anew with its network when all of it was killed", async () => {
    const holder = readNamespace(readFileSync(join(dir, "namespace.json"), "utf8"))?.holder;
    if (holder === undefined) throw new Error("it does not run");
    process.kill(holder.pid, "SIGKILL");
    await waitUntil("it ends", () => !isAlive(holder), { timeoutSeconds: 30 });
    expect(await start()).toEqual({ adopted: false });
    expect(await host.virsh(["net-list", "--name"])).toContain("default");
    await stop();
    await stop();
  });
});
