import { createHash, randomBytes } from "node:crypto";
import { expect } from "vitest";
import type { VolumeAbility, VolumeRef } from "../../../src/hypervisors/hypervisor.ts";
import type { Behaviour } from "./record.ts";
import { expectRefusal, present, type Scene } from "./scene.ts";
import { chunks } from "./volumes.ts";

const MIB = 1 << 20;

/** Volumes made of others on the host, and content that comes in parts: what images are brought and kept with. */
export function volumeContentBehaviours(scene: Scene, behaviour: Behaviour): void {
  const volumes = (): VolumeAbility => present(scene.connection.volumes);
  const { volumeMembers } = scene.contract;
  const filled = async (content: Buffer, capacityBytes = content.length): Promise<VolumeRef> => {
    const ref = scene.volume();
    await volumes().createVolume({ ...ref, format: "raw", capacityBytes }, scene.call());
    await volumes().uploadVolume(ref, chunks(content), content.length, scene.call());
    return ref;
  };
  const expectContent = async (ref: VolumeRef, content: Buffer): Promise<void> => {
    const expected = digestOf(content);
    const found = await scene.contract.hooks?.digestOfVolume?.(scene.world, ref, content.length);
    expect(found ?? expected).toBe(expected);
  };

  behaviour("volumes", "the optional members are there that the run declares", async () => {
    const there = (["overlayVolume", "uploadPart", "digestVolume"] as const).filter(
      (member) => volumes()[member] !== undefined,
    );
    expect(there).toEqual(volumeMembers);
  });

  behaviour("volumes", "a copy has its source's content, and the capacity that was asked for", async () => {
    const content = randomBytes(2 * MIB);
    const source = await filled(content);
    const spec = { ...scene.volume(), format: "raw", capacityBytes: 3 * MIB } as const;
    const made = await volumes().copyVolume(spec, source, scene.call());
    expect(made).toMatchObject({ pool: spec.pool, name: spec.name, capacityBytes: 3 * MIB });
    await expectContent(spec, content);
    // On its own from here on.
    await volumes().deleteVolume(source, scene.call());
    expect(await volumes().observeVolume(spec, scene.call())).toMatchObject({ capacityBytes: 3 * MIB });
    await expectContent(spec, content);
  });

  behaviour("volumes", "a copy that is not larger keeps its source's capacity", async () => {
    const source = await filled(randomBytes(2 * MIB));
    const spec = { ...scene.volume(), format: "raw", capacityBytes: MIB } as const;
    expect(await volumes().copyVolume(spec, source, scene.call())).toMatchObject({ capacityBytes: 2 * MIB });
  });

  behaviour("volumes", "a copy takes the place of what an earlier one left", async () => {
    const content = randomBytes(MIB);
    const source = await filled(content);
    const left = await filled(randomBytes(2 * MIB));
    const spec = { ...left, format: "raw", capacityBytes: MIB } as const;
    for (let time = 0; time < 2; time++) {
      expect(await volumes().copyVolume(spec, source, scene.call())).toMatchObject({ capacityBytes: MIB });
      await expectContent(spec, content);
    }
  });

  behaviour("volumes", "a copy of a volume that is not there says so, and makes none", async () => {
    const spec = { ...scene.volume(), format: "raw", capacityBytes: MIB } as const;
    await expectRefusal(volumes().copyVolume(spec, scene.volume(), scene.call()), "not-found");
    expect(await volumes().observeVolume(spec, scene.call())).toBeNull();
  });

  behaviour("volumes", "copying asks for the right to change the host", async () => {
    const source = await filled(randomBytes(MIB));
    const spec = { ...scene.volume(), format: "raw", capacityBytes: MIB } as const;
    const refusal = new Error("the lease is over");
    const call = scene.call({
      beforeSend: () => {
        throw refusal;
      },
    });
    await expect(volumes().copyVolume(spec, source, call)).rejects.toBe(refusal);
    expect(await volumes().observeVolume(spec, scene.call())).toBeNull();
  });

  if (volumeMembers.includes("overlayVolume")) overlays(scene, behaviour, volumes, filled);
  if (volumeMembers.includes("uploadPart")) parts(scene, behaviour, volumes, expectContent);
  if (volumeMembers.includes("digestVolume")) {
    behaviour("volumes", "the host tells the digest of what is on its disk", async () => {
      const content = randomBytes(2 * MIB + 17);
      const ref = await filled(content, 3 * MIB);
      const digest = present(volumes().digestVolume);
      expect(await digest(ref, content.length, scene.call())).toBe(digestOf(content));
      await expectRefusal(digest(scene.volume(), 9, scene.call()), "not-found");
    });
  }
}

function overlays(
  scene: Scene,
  behaviour: Behaviour,
  volumes: () => VolumeAbility,
  filled: (content: Buffer) => Promise<VolumeRef>,
): void {
  behaviour("volumes", "an overlay takes no room for what it reads from its base", async () => {
    const base = { ...(await filled(randomBytes(4 * MIB))), format: "raw" } as const;
    const spec = { ...scene.volume(), format: "qcow2", capacityBytes: 8 * MIB } as const;
    const overlay = present(volumes().overlayVolume);
    // Twice: the second takes the place of the first.
    for (let time = 0; time < 2; time++) {
      const made = await overlay(spec, base, scene.call());
      expect(made).toMatchObject({ pool: spec.pool, name: spec.name, capacityBytes: 8 * MIB });
      expect(made.allocationBytes).toBeLessThan(MIB);
    }
    expect(await volumes().observeVolume(base, scene.call())).not.toBeNull();
  });

  behaviour("volumes", "an overlay of a volume that is not there says so, and makes none", async () => {
    const spec = { ...scene.volume(), format: "qcow2", capacityBytes: MIB } as const;
    const base = { ...scene.volume(), format: "raw" } as const;
    await expectRefusal(present(volumes().overlayVolume)(spec, base, scene.call()), "not-found");
    expect(await volumes().observeVolume(spec, scene.call())).toBeNull();
  });
}

function parts(
  scene: Scene,
  behaviour: Behaviour,
  volumes: () => VolumeAbility,
  expectContent: (ref: VolumeRef, content: Buffer) => Promise<void>,
): void {
  const upload: NonNullable<VolumeAbility["uploadPart"]> = (...args) =>
    present(volumes().uploadPart)(...args);

  behaviour("volumes", "content comes in parts, and goes on where the last whole one ended", async () => {
    const content = randomBytes(3 * MIB + 17);
    const ref = scene.volume();
    const spec = { ...ref, format: "raw", capacityBytes: content.length } as const;
    await volumes().createVolume(spec, scene.call());
    const send = (offsetBytes: number, sizeBytes: number, given = sizeBytes): Promise<void> =>
      upload(
        ref,
        chunks(content.subarray(offsetBytes, offsetBytes + given)),
        { offsetBytes, sizeBytes },
        scene.call(),
      );
    await send(0, 2 * MIB);
    // Broken off in its middle, and sent anew.
    await expect(send(2 * MIB, MIB, 1000)).rejects.toThrow();
    await send(2 * MIB, MIB);
    await send(3 * MIB, 17);
    await expectContent(ref, content);
    const observed = await volumes().observeVolume(ref, scene.call());
    expect(observed?.allocationBytes).toBeGreaterThanOrEqual(3 * MIB);
  });

  behaviour("volumes", "a part of a volume that is not there says so", async () => {
    const part = { offsetBytes: 0, sizeBytes: 9 };
    await expectRefusal(upload(scene.volume(), chunks(Buffer.alloc(9)), part, scene.call()), "not-found");
  });
}

function digestOf(content: Buffer): string {
  return createHash("sha256").update(content).digest("hex");
}
