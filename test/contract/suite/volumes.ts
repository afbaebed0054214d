import { createHash, randomBytes } from "node:crypto";
import { expect } from "vitest";
import type { VolumeAbility, VolumeFormat, VolumeRef } from "../../../src/hypervisors/hypervisor.ts";
import type { Behaviour } from "./record.ts";
import { expectRefusal, present, type Scene } from "./scene.ts";

const MIB = 1 << 20;

/** Volumes in a pool: each call twice, content sent whole or not at all. */
export function volumeBehaviours(
  scene: Scene,
  behaviour: Behaviour,
  formats: readonly VolumeFormat[] = ["raw", "qcow2"],
): void {
  const volumes = (): VolumeAbility => present(scene.connection.volumes);
  const create = async (capacityBytes = MIB, format: "raw" | "qcow2" = "raw"): Promise<VolumeRef> => {
    const ref = scene.volume();
    await volumes().createVolume({ ...ref, format, capacityBytes }, scene.call());
    return ref;
  };

  behaviour("volumes", "a volume that is not there is observed as none", async () => {
    expect(await volumes().observeVolume(scene.volume(), scene.call())).toBeNull();
  });

  for (const format of formats) {
    behaviour("volumes", `a ${format} volume is created, and observed as created`, async () => {
      const ref = scene.volume();
      const created = await volumes().createVolume({ ...ref, format, capacityBytes: MIB }, scene.call());
      expect(created).toMatchObject({ ...ref, capacityBytes: MIB });
      expect(created.path).toContain(ref.name);
      const observed = await volumes().observeVolume(ref, scene.call());
      expect(observed).toMatchObject({ ...ref, path: created.path, capacityBytes: MIB });
    });
  }

  behaviour("volumes", "creating again leaves the volume as it is", async () => {
    const ref = await create();
    const again = await volumes().createVolume(
      { ...ref, format: "raw", capacityBytes: 2 * MIB },
      scene.call(),
    );
    expect(again.capacityBytes).toBe(MIB);
  });

  behaviour("volumes", "a deleted volume is gone, and deleting it again is fine", async () => {
    const ref = await create();
    await volumes().deleteVolume(ref, scene.call());
    expect(await volumes().observeVolume(ref, scene.call())).toBeNull();
    await volumes().deleteVolume(ref, scene.call());
  });

  behaviour("volumes", "a volume grows, never shrinks, and growing again is fine", async () => {
    const ref = await create();
    const capacityAfter = async (capacityBytes: number): Promise<number | undefined> => {
      await volumes().growVolume(ref, capacityBytes, scene.call());
      return (await volumes().observeVolume(ref, scene.call()))?.capacityBytes;
    };
    expect(await capacityAfter(3 * MIB)).toBe(3 * MIB);
    expect(await capacityAfter(3 * MIB)).toBe(3 * MIB);
    expect(await capacityAfter(2 * MIB)).toBe(3 * MIB);
  });

  behaviour("volumes", "volumes are listed by the beginning of their names", async () => {
    const ref = await create();
    const other = await create();
    const listed = await volumes().listVolumes(ref.pool, ref.name.slice(0, -4), scene.call());
    expect(listed.map(({ name }) => name)).toEqual([ref.name]);
    const both = await volumes().listVolumes(ref.pool, "contract-", scene.call());
    expect(both.map(({ name }) => name)).toEqual(expect.arrayContaining([ref.name, other.name]));
    expect(await volumes().listVolumes(ref.pool, `no-${ref.name}`, scene.call())).toEqual([]);
  });

  behaviour("volumes", "a pool or a volume that is not there says so", async () => {
    const lost = { pool: "no-such-pool", name: "contract-x.img" };
    await expectRefusal(
      volumes().createVolume({ ...lost, format: "raw", capacityBytes: MIB }, scene.call()),
      "not-found",
    );
    await expectRefusal(volumes().listVolumes(lost.pool, "", scene.call()), "not-found");
    await expectRefusal(volumes().growVolume(scene.volume(), MIB, scene.call()), "not-found");
    await expectRefusal(
      volumes().uploadVolume(scene.volume(), chunks(Buffer.alloc(9)), 9, scene.call()),
      "not-found",
    );
  });

  behaviour("volumes", "changing a volume asks for the right to change the host", async () => {
    const ref = await create();
    const fresh = scene.volume();
    const refusal = new Error("the lease is over");
    const call = scene.call({
      beforeSend: () => {
        throw refusal;
      },
    });
    await expect(volumes().createVolume({ ...fresh, format: "raw", capacityBytes: MIB }, call)).rejects.toBe(
      refusal,
    );
    await expect(volumes().growVolume(ref, 2 * MIB, call)).rejects.toBe(refusal);
    await expect(volumes().uploadVolume(ref, chunks(Buffer.alloc(9)), 9, call)).rejects.toBe(refusal);
    await expect(volumes().deleteVolume(ref, call)).rejects.toBe(refusal);
    expect(await volumes().observeVolume(fresh, scene.call())).toBeNull();
    expect(await volumes().observeVolume(ref, scene.call())).toMatchObject({ capacityBytes: MIB });
  });

  uploads(scene, behaviour, volumes, create);

  const fillPool = scene.contract.hooks?.fillPool;
  if (fillPool === undefined) return;
  behaviour("volumes", "content that does not fit into the pool is refused", async () => {
    const ref = await create(8 * MIB);
    scene.afterwards(await fillPool(scene.world));
    const content = randomBytes(8 * MIB);
    await expectRefusal(
      volumes().uploadVolume(ref, chunks(content), content.length, scene.call()),
      "storage-full",
    );
  });
}

function uploads(
  scene: Scene,
  behaviour: Behaviour,
  volumes: () => VolumeAbility,
  create: (capacityBytes?: number) => Promise<VolumeRef>,
): void {
  behaviour("volumes", "content is written from the beginning, and can be written again", async () => {
    const ref = await create(4 * MIB);
    for (const content of [randomBytes(3 * MIB + 17), randomBytes(3 * MIB + 17)]) {
      await volumes().uploadVolume(ref, chunks(content), content.length, scene.call());
      const expected = createHash("sha256").update(content).digest("hex");
      const found = await scene.contract.hooks?.digestOfVolume?.(scene.world, ref, content.length);
      expect(found ?? expected).toBe(expected);
    }
    const observed = await volumes().observeVolume(ref, scene.call());
    expect(observed?.capacityBytes).toBe(4 * MIB);
    expect(observed?.allocationBytes).toBeGreaterThanOrEqual(3 * MIB);
  });

  behaviour("volumes", "an upload that gives less or more than it announced rejects", async () => {
    const ref = await create();
    const content = randomBytes(MIB / 2);
    await expect(
      volumes().uploadVolume(ref, chunks(content), content.length + 1, scene.call()),
    ).rejects.toThrow();
    await expect(
      volumes().uploadVolume(ref, chunks(content), content.length - 1, scene.call()),
    ).rejects.toThrow();
    await volumes().uploadVolume(ref, chunks(content), content.length, scene.call());
  });

  behaviour("volumes", "an upload whose source fails rejects, and the connection lives on", async () => {
    const ref = await create();
    const broken = (async function* () {
      yield randomBytes(1000);
      throw new Error("the source broke");
    })();
    await expect(volumes().uploadVolume(ref, broken, MIB, scene.call())).rejects.toThrow();
    expect(await volumes().observeVolume(ref, scene.call())).not.toBeNull();
  });

  behaviour("volumes", "an upload that is given up rejects, though its source stalls", async () => {
    const ref = await create();
    const stop = new AbortController();
    const stalled = (async function* () {
      yield randomBytes(1000);
      stop.abort();
      await new Promise(() => undefined);
    })();
    await expectRefusal(
      volumes().uploadVolume(ref, stalled, MIB, scene.call({ signal: stop.signal })),
      "aborted",
    );
    expect(await volumes().observeVolume(ref, scene.call())).not.toBeNull();
  });
}

export async function* chunks(content: Buffer): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < content.length; at += 100_000) yield content.subarray(at, at + 100_000);
}
