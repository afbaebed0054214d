import { expect } from "vitest";
import type { DiskHotplugAbility, DomainDisk, DomainSpec } from "../../../src/hypervisors/hypervisor.ts";
import type { Behaviour } from "./record.ts";
import { expectRefusal, present, type Scene } from "./scene.ts";

const MIB = 1 << 20;

/** Disks that come and go while the guest runs: each call twice, in the guest and in its definition. */
export function diskHotplugBehaviours(scene: Scene, behaviour: Behaviour): void {
  const hotplug = (): DiskHotplugAbility => present(scene.connection.diskHotplug);
  const newDisk = async (name: string): Promise<DomainDisk> => {
    const volume = scene.volume();
    const spec = { ...volume, format: "qcow2", capacityBytes: 8 * MIB } as const;
    await present(scene.connection.volumes).createVolume(spec, scene.call());
    return { name, kind: "disk", volume, format: "qcow2" };
  };
  const released = async (spec: DomainSpec, disk: DomainDisk): Promise<void> => {
    await scene.eventually("the guest lets go of its disk", () =>
      hotplug().detachDisk(spec.uuid, disk, scene.call()),
    );
  };

  behaviour(
    "diskHotplug",
    "a running guest gets a disk and lets go of it, each asked for twice",
    async () => {
      const spec = await scene.start();
      await scene.guestUp(spec);
      const disk = await newDisk("extra");
      await hotplug().attachDisk(spec.uuid, disk, scene.call());
      await hotplug().attachDisk(spec.uuid, disk, scene.call());
      expect(await scene.power(spec)).toBe("running");
      await released(spec, disk);
      expect(await hotplug().detachDisk(spec.uuid, disk, scene.call())).toBe(true);
      expect(await scene.power(spec)).toBe("running");
    },
  );

  behaviour("diskHotplug", "what a running guest got is there after it was stopped and started", async () => {
    const spec = await scene.start();
    const disk = await newDisk("extra");
    await hotplug().attachDisk(spec.uuid, disk, scene.call());
    await scene.connection.forceOffDomain(spec.uuid, scene.call());
    await present(scene.connection.volumes).deleteVolume(disk.volume, scene.call());
    await expectRefusal(scene.connection.startDomain(spec.uuid, scene.call()), "invalid-spec");
  });

  behaviour("diskHotplug", "what a running guest let go of is not missed at its next start", async () => {
    const spec = await scene.start();
    await scene.guestUp(spec);
    const disk = await newDisk("extra");
    await hotplug().attachDisk(spec.uuid, disk, scene.call());
    await released(spec, disk);
    await scene.connection.forceOffDomain(spec.uuid, scene.call());
    await present(scene.connection.volumes).deleteVolume(disk.volume, scene.call());
    await scene.connection.startDomain(spec.uuid, scene.call());
    expect(await scene.power(spec)).toBe("running");
  });

  behaviour("diskHotplug", "two disks come beside each other, and one goes", async () => {
    const spec = await scene.start({ disks: [await newDisk("first")] });
    await scene.guestUp(spec);
    const [second, third] = [await newDisk("second"), await newDisk("third")];
    await hotplug().attachDisk(spec.uuid, second, scene.call());
    await hotplug().attachDisk(spec.uuid, third, scene.call());
    await released(spec, second);
    await hotplug().growDisk(spec.uuid, third, 16 * MIB, scene.call());
    await expectRefusal(hotplug().growDisk(spec.uuid, second, 16 * MIB, scene.call()), "not-found");
  });

  behaviour(
    "diskHotplug",
    "a disk grows under its guest, never shrinks, and growing again is fine",
    async () => {
      const disk = await newDisk("data");
      const spec = await scene.start({ disks: [disk] });
      for (const capacityBytes of [16 * MIB, 16 * MIB, 12 * MIB]) {
        await hotplug().growDisk(spec.uuid, disk, capacityBytes, scene.call());
        const seen = await present(scene.connection.volumes).observeVolume(disk.volume, scene.call());
        expect(seen?.capacityBytes).toBe(16 * MIB);
      }
    },
  );

  behaviour("diskHotplug", "a guest that is off, or that is not there, says so", async () => {
    const spec = await scene.define();
    const disk = await newDisk("extra");
    for (const [uuid, reason] of [
      [spec.uuid, "invalid-state"],
      [scene.spec().uuid, "not-found"],
    ] as const) {
      await expectRefusal(hotplug().attachDisk(uuid, disk, scene.call()), reason);
      await expectRefusal(hotplug().detachDisk(uuid, disk, scene.call()), reason);
      await expectRefusal(hotplug().growDisk(uuid, disk, 16 * MIB, scene.call()), reason);
    }
  });

  behaviour("diskHotplug", "a disk whose volume is not there is refused, and the guest goes on", async () => {
    const spec = await scene.start();
    const disk: DomainDisk = { name: "lost", kind: "disk", volume: scene.volume(), format: "qcow2" };
    await expectRefusal(hotplug().attachDisk(spec.uuid, disk, scene.call()), "invalid-spec");
    expect(await scene.power(spec)).toBe("running");
  });

  behaviour("diskHotplug", "changing disks asks for the right to change the host", async () => {
    const spec = await scene.start();
    const disk = await newDisk("extra");
    const refusal = new Error("the lease is over");
    const call = scene.call({
      beforeSend: () => {
        throw refusal;
      },
    });
    await expect(hotplug().attachDisk(spec.uuid, disk, call)).rejects.toBe(refusal);
  });
}
