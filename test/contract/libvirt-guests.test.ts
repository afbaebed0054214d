import { createReadStream, statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { buildGuestImage } from "../../src/setup/guest-image.mjs";
import { BOOT_MARKER, call } from "./libvirt-qemu-world.ts";
import { LibvirtScene, PATIENCE, POOL, POOL_PATH, there } from "./libvirt-scene.ts";

// What the libvirt driver does beside the contract, over a real libvirtd and QEMU.

vi.setConfig({ testTimeout: PATIENCE.timeout });
const scene = new LibvirtScene();

describe("a QEMU that hangs", () => {
  it("holds up its own calls only, and obeys again when it is back", async () => {
    const [stuck, other] = [await scene.define(), await scene.define()];
    await scene.connection.startDomain(stuck.uuid, call);
    const pid = scene.host.qemuPid(stuck.name);
    process.kill(pid, "SIGSTOP");
    scene.afterwards(async () => {
      process.kill(pid, "SIGCONT");
    });
    const short = { ...call, timeoutMs: 1500 };
    const reset = there(scene.connection.resetDomain);
    const ends = Promise.allSettled(Array.from({ length: 6 }, () => reset(stuck.uuid, short)));
    await scene.connection.startDomain(other.uuid, call);
    await scene.connection.forceOffDomain(other.uuid, call);
    for (const end of await ends)
      expect(end).toMatchObject({ status: "rejected", reason: { reason: "timeout" } });
    const { domains } = await scene.connection.inventory(call);
    expect(domains.find(({ uuid }) => uuid === stuck.uuid)).toMatchObject({ power: "running" });
    expect(await scene.connection.observeDomain(stuck.uuid, call)).toMatchObject({ power: "running" });
    process.kill(pid, "SIGCONT");
    await there(scene.connection.pause).pauseDomain(stuck.uuid, call);
    expect(await scene.connection.observeDomain(stuck.uuid, call)).toMatchObject({ power: "paused" });
  });
});

describe("a save that its caller gives up", () => {
  it("is given up by a start, or comes to its end and is taken back by it", async () => {
    const spec = await scene.define();
    await scene.connection.startDomain(spec.uuid, call);
    const power = async () => (await scene.connection.observeDomain(spec.uuid, call))?.power;
    const giveUp = new AbortController();
    const save = there(scene.connection.saveDomain);
    const saved = save(spec.uuid, { ...call, signal: giveUp.signal }).catch((error: unknown) => error);
    await vi.waitFor(async () => {
      expect(await power()).not.toBe("running");
    }, PATIENCE);
    giveUp.abort();
    await saved;
    await vi.waitFor(() => scene.connection.startDomain(spec.uuid, call), PATIENCE);
    expect(await power()).toBe("running");
  });
});

describe("a screen", () => {
  it("that is on another loopback than ours is not taken for one that is", async () => {
    const spec = await scene.define();
    await scene.connection.startDomain(spec.uuid, call);
    const open = there(scene.connection.openVnc);
    await expect(open(spec.uuid, call)).rejects.toMatchObject({
      reason: "unsupported",
      message: expect.stringContaining("qemu+ssh://") as string,
    });
  });
});

describe("a qcow2 image", () => {
  it("is uploaded as it is, shows its own size, grows, and boots", async () => {
    const { disk } = await buildGuestImage();
    const volumes = there(scene.connection.volumes);
    const volume = { pool: POOL, name: "contract-boot.qcow2" };
    const sizeBytes = statSync(disk).size;
    const capacityBytes = 1 << 30;
    scene.afterwards(async () => volumes.deleteVolume(volume, call));
    await volumes.createVolume({ ...volume, format: "qcow2", capacityBytes }, call);
    // A broken-off upload of something else is overwritten.
    const broken = (async function* () {
      yield Buffer.alloc(3 << 20, "x");
      throw new Error("broken off");
    })();
    await expect(volumes.uploadVolume(volume, broken, sizeBytes, call)).rejects.toThrow("broken off");
    await volumes.uploadVolume(volume, createReadStream(disk), sizeBytes, call);
    const uploaded = await volumes.observeVolume(volume, call);
    expect(there(uploaded).capacityBytes).toBeLessThan(capacityBytes);
    await volumes.growVolume(volume, capacityBytes, call);
    expect(await volumes.observeVolume(volume, call)).toMatchObject({ capacityBytes });
    expect(await scene.host.virsh(["vol-info", "--bytes", volume.name, POOL])).toMatch(
      /Capacity: +1073741824 /,
    );
    const path = join(POOL_PATH, volume.name);
    expect(await scene.host.exec("qemu-img", ["check", path])).toContain("No errors were found");

    const spec = await scene.define({ disks: [{ name: "root", kind: "disk", volume, format: "qcow2" }] });
    await scene.connection.startDomain(spec.uuid, call);
    await vi.waitFor(async () => {
      expect(await scene.readLog(spec)).toMatch(BOOT_MARKER);
    }, PATIENCE);
  });
});

describe("a console log", () => {
  it("that was turned over is read across its parts, and removed with all of them", async () => {
    const spec = await scene.define();
    await scene.writeLog(spec, "", "one ");
    expect(await scene.readLog(spec)).toBe("one ");
    await scene.writeLog(spec, "", "one two ");
    expect(await scene.readLog(spec)).toBe("one two ");
    await scene.writeLog(spec, ".1", "one ");
    await scene.writeLog(spec, ".0", "two ");
    await scene.writeLog(spec, "", "3");
    expect(await scene.readLog(spec)).toBe("one two 3");
    expect(await scene.readLog(spec, scene.connection, 4)).toBe("wo 3");
    expect(await scene.readLog(spec, await scene.connectTo(scene.target))).toBe("one two 3");
    await there(scene.connection.consoleLog).deleteConsoleLog(scene.refOf(spec), call);
    const left = await scene.host.exec("ls", [POOL_PATH]);
    expect(left).not.toContain(spec.uuid);
  });

  it("that looks like a disk image is still read as it is", async () => {
    const spec = await scene.define();
    const content = "QFI\xfb and what a guest may write";
    await scene.writeLog(spec, "", content);
    expect(await scene.readLog(spec)).toBe(content);
  });
});
