import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  attachVmDisk,
  bringImageToHost,
  cancelOperation,
  createVolume,
  deleteHost,
  deleteImage,
  deleteVm,
  deleteVolume,
  downloadVolume,
  evictImageFromHost,
  forgetHost,
  getOperation,
  type HostImage,
  listHostImages,
} from "../../openapi/sdk/index.ts";
import { MIB } from "../../src/lib/units.ts";
import { kernelContent } from "../crash/image-server.ts";
import { putImage, qcow2Image } from "../fixtures/guest-images.ts";
import {
  addHost,
  addVm,
  askForVm,
  ok,
  operationEnd,
  problemOf,
  startTestService,
  type TestService,
} from "../fixtures/service.ts";

let service: TestService;
beforeAll(async () => {
  // Room for three images of a MiB, and no more.
  service = await startTestService({ DROVER_HOST_IMAGE_CACHE_GIB: String((3.9 * MIB) / 2 ** 30) });
});
afterAll(async () => {
  await service.stop();
});

let hosts = 0;
async function newHost(parameters = "", hypervisor = "kvm"): Promise<string> {
  const name = `cache-${hosts++}`;
  await addHost(service, name, `sim+${hypervisor}://${name}?cpus=64&memoryGib=64${parameters}`);
  return name;
}

let images = 0;
/** A raw image takes its bytes, and no program to make it. */
async function newImage(content: Uint8Array = randomBytes(MIB)): Promise<{ id: string; name: string }> {
  const name = `image-${images++}`;
  return { name, id: (await putImage(service, name, "disk", content)).id };
}

const on = (host: string, image: string) => ({
  placement: { host },
  disks: [{ name: "root", image }],
});

async function copiesOn(host: string): Promise<HostImage[]> {
  return (await ok(listHostImages({ client: service.client, path: { host } }))).items;
}

interface SimVolume {
  readonly name: string;
  readonly base: string | null;
  readonly sha256: string | null;
  readonly received: number;
}

/** The volumes of a simulated host, as it has them. */
async function volumesOn(host: string): Promise<SimVolume[]> {
  return await service.database.db.$queryRaw<SimVolume[]>`
    SELECT v.name, v.base_name AS base, v.content_sha256 AS sha256, v.received_bytes::float8 AS received
    FROM sim.volume v JOIN sim.host h ON h.id = v.host_id WHERE h.name = ${host} ORDER BY v.name`;
}

/** How many bytes of images have travelled to a host that has not lost any. */
async function receivedBy(host: string): Promise<number> {
  return (await volumesOn(host)).reduce((sum, { received }) => sum + received, 0);
}

async function operationsOf(kind: string, host: string): Promise<string[]> {
  const rows = await service.database.db.operation.findMany({
    where: { kind, hosts: { equals: [host] } },
    orderBy: { seq: "asc" },
  });
  return rows.map(({ id }) => id);
}

function eventually(look: () => Promise<unknown>) {
  return expect.poll(look, { timeout: 60_000, interval: 100 });
}

async function removeVm(id: string): Promise<void> {
  const { operation } = await ok(deleteVm({ client: service.client, path: { vm: id } }));
  expect((await operationEnd(service, operation.id)).state).toBe("succeeded");
}

describe("an image and a host", () => {
  it("travels once, however many VMs are made of it at once; and to two hosts twice", async () => {
    const content = await qcow2Image();
    const image = await newImage(content);
    const both = [await newHost("&latencyMs=20"), await newHost("&latencyMs=20")];
    for (const [index, host] of both.entries()) {
      const asked = await Promise.all(
        Array.from({ length: 20 }, (_, n) => askForVm(service, `many-${index}-${n}`, on(host, image.name))),
      );
      const ends = await Promise.all(asked.map(({ operation }) => operationEnd(service, operation.id)));
      expect(ends.map(({ state }) => state)).toEqual(asked.map(() => "succeeded"));
      expect(await receivedBy(host)).toBe(content.length);
      const [bring, ...more] = await operationsOf("hostImage.bring", host);
      expect(more).toEqual([]);
      // What came while it was on its way waited for it in the queue; the first one did for certain.
      const subject = { kind: "hostImage", subjectId: bring ?? "", mode: "shared" };
      const waited = await service.database.db.operationSubject.count({ where: subject });
      expect(waited).toBeGreaterThan(0);
      const volumes = await volumesOn(host);
      const copy = volumes.find(({ name }) => name.startsWith("drover-image-"));
      const disks = volumes.filter(({ name }) => !name.startsWith("drover-image-"));
      expect(disks.map(({ base }) => base)).toEqual(asked.map(() => copy?.name));
    }
    expect((await copiesOn(both[0] ?? ""))[0]).toMatchObject({ state: "ready", volumeCount: 20 });
  });

  it("travels once for VMs, volumes of their own and disks that come later, and all of them back on it", async () => {
    const content = await qcow2Image();
    const image = await newImage(content);
    const host = await newHost("&latencyMs=20");
    const { vm, operation: created } = await askForVm(service, "sharer", on(host, image.name));
    const body = { name: "shared", host, source: { kind: "image" as const, image: image.name } };
    const { operation: made } = await ok(createVolume({ client: service.client, body }));
    expect(made.blockedBy).not.toEqual([]);
    const disk = { name: "data", image: image.name, deletePolicy: "retain" as const };
    const { operation: attached } = await ok(
      attachVmDisk({ client: service.client, path: { vm: vm.id }, body: disk }),
    );
    for (const { id } of [created, made, attached])
      expect(await operationEnd(service, id)).toMatchObject({ state: "succeeded", error: null });
    expect(await receivedBy(host)).toBe(content.length);
    const volumes = await volumesOn(host);
    const copy = volumes.find(({ name }) => name.startsWith("drover-image-"))?.name;
    const bases = volumes.flatMap(({ base }) => (base === null ? [] : [base]));
    expect(bases).toEqual([copy, copy, copy]);
    expect(await copiesOn(host)).toMatchObject([{ state: "ready", volumeCount: 3 }]);
    // What holds only the difference is not given out as if it were whole.
    const refusal = await problemOf(downloadVolume({ client: service.client, path: { volume: "shared" } }));
    expect(refusal).toMatchObject({ code: "invalid_state" });
    await ok(deleteVolume({ client: service.client, path: { volume: "shared" }, query: { wait: 60 } }));
    expect(await copiesOn(host)).toMatchObject([{ volumeCount: 2 }]);
  });

  it("is given free by a volume that could not be made of it", async () => {
    const image = await newImage();
    const host = await newHost();
    await addVm(service, "earlier", on(host, image.name));
    await service.sim.fillPool(`sim+kvm://${host}?cpus=64&memoryGib=64`);
    const body = { name: "too-much", host, source: { kind: "image" as const, image: image.name } };
    const { operation } = await ok(createVolume({ client: service.client, body, query: { wait: 60 } }));
    expect(operation).toMatchObject({ state: "failed", error: { code: "storage_full" } });
    expect(await copiesOn(host)).toMatchObject([{ state: "ready", volumeCount: 0 }]);
  });

  it("is there for the next VM, which waits for nothing", async () => {
    const image = await newImage();
    const host = await newHost();
    await addVm(service, "first", on(host, image.name));
    const { operation } = await askForVm(service, "second", on(host, image.name));
    expect(operation.blockedBy).toEqual([]);
    expect((await operationEnd(service, operation.id)).state).toBe("succeeded");
    expect(await receivedBy(host)).toBe(MIB);
  });

  it("shows how far it has come on its operation, and what it waits for on the VM's", async () => {
    const image = await newImage();
    const host = await newHost();
    await service.sim.hangNextCalls(`sim+kvm://${host}`, "digestVolume", 1);
    const { operation } = await askForVm(service, "patient", on(host, image.name));
    const [bring = ""] = operation.blockedBy;
    await eventually(async () => {
      const { steps } = await ok(getOperation({ client: service.client, path: { operation: bring } }));
      return steps[0]?.progress;
    }).toEqual({ done: MIB, total: MIB, unit: "bytes" });
    expect(await copiesOn(host)).toMatchObject([
      { state: "filling", operation: bring, volumeCount: 1, sizeBytes: MIB },
    ]);
    await ok(cancelOperation({ client: service.client, path: { operation: operation.id } }));
    await ok(cancelOperation({ client: service.client, path: { operation: bring } }));
    expect((await operationEnd(service, bring)).state).toBe("cancelled");
  });

  it("gives a raw disk and a kernel a copy each, which needs the image's no more", async () => {
    const image = await newImage();
    await putImage(service, "a-kernel", "kernel", kernelContent("host-images"));
    for (const hypervisor of ["kvm", "xen"]) {
      const host = await newHost("", hypervisor);
      await addVm(service, `copied-${hypervisor}`, {
        ...on(host, image.name),
        boot: { kernel: "a-kernel" },
        disks: [{ name: "root", image: image.name, sizeGib: 1 }],
      });
      expect((await copiesOn(host)).map(({ volumeCount }) => volumeCount)).toEqual([0, 0]);
      const volumes = await volumesOn(host);
      expect(volumes.map(({ base }) => base)).toEqual([null, null, null, null]);
      expect(new Set(volumes.map(({ sha256 }) => sha256)).size).toBe(2);
    }
  });

  it("gives a qcow2 disk on Xen a copy, for its guests read no other file", async () => {
    const image = await newImage(await qcow2Image());
    const host = await newHost("", "xen");
    await addVm(service, "on-xen", on(host, image.name));
    expect(await copiesOn(host)).toMatchObject([{ volumeCount: 0 }]);
    expect((await volumesOn(host)).map(({ base }) => base)).toEqual([null, null]);
  });
});

describe("what goes wrong on the way", () => {
  it("fails those that wait, leaves nothing on the host, and is tried anew by the next", async () => {
    const image = await newImage();
    const host = await newHost();
    await service.sim.failNextCalls(`sim+kvm://${host}`, "uploadVolume", 5);
    const asked = await Promise.all(
      ["failing-1", "failing-2"].map((name) => askForVm(service, name, on(host, image.name))),
    );
    for (const { operation } of asked) {
      const ended = await operationEnd(service, operation.id);
      expect(ended).toMatchObject({ state: "failed", error: { code: "hypervisor_error" } });
      expect(ended.error?.message).toContain("could not be brought to the host");
    }
    await eventually(() => volumesOn(host)).toEqual([]);
    await eventually(() => copiesOn(host)).toEqual([]);
    await addVm(service, "failing-no-more", on(host, image.name));
  });

  it("is asked for again by those that wait when it is cancelled", async () => {
    const image = await newImage();
    const host = await newHost();
    await service.sim.hangNextCalls(`sim+kvm://${host}`, "createVolume", 1);
    const { operation } = await askForVm(service, "undaunted", on(host, image.name));
    const [bring = ""] = operation.blockedBy;
    await eventually(
      async () => (await ok(getOperation({ client: service.client, path: { operation: bring } }))).state,
    ).toBe("running");
    await ok(cancelOperation({ client: service.client, path: { operation: bring } }));
    expect((await operationEnd(service, bring)).state).toBe("cancelled");
    expect((await operationEnd(service, operation.id)).state).toBe("succeeded");
    expect(await operationsOf("hostImage.bring", host)).toHaveLength(2);
  });

  it("brings a copy anew that somebody took from the host", async () => {
    const image = await newImage();
    const host = await newHost();
    await addVm(service, "before", on(host, image.name));
    await service.database.db.$executeRaw`DELETE FROM sim.volume WHERE name LIKE 'drover-image-%'
      AND host_id = (SELECT id FROM sim.host WHERE name = ${host})`;
    await addVm(service, "after", on(host, image.name));
    expect(await copiesOn(host)).toMatchObject([{ state: "ready" }]);
  });

  it("notices content that arrived damaged, and sends it again", async () => {
    const image = await newImage();
    const host = await newHost();
    const { db } = service.database;
    await db.$executeRaw`CREATE FUNCTION damage() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        IF OLD.received_bytes = 0 AND NEW.received_bytes > 0 AND NEW.name LIKE 'drover-image-%' THEN
          NEW.content_sha256 := repeat('0', 64);
        END IF;
        RETURN NEW;
      END $$`;
    await db.$executeRaw`CREATE TRIGGER damage BEFORE UPDATE ON sim.volume FOR EACH ROW
      WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION damage()`;
    const { operation } = await askForVm(service, "damaged", on(host, image.name));
    const [bring = ""] = operation.blockedBy;
    await eventually(async () => {
      const { steps } = await ok(getOperation({ client: service.client, path: { operation: bring } }));
      return steps[0]?.error?.message;
    }).toContain("damaged on its way");
    await db.$executeRaw`DROP TRIGGER damage ON sim.volume`;
    expect((await operationEnd(service, operation.id)).state).toBe("succeeded");
  });
});

describe("what is kept", () => {
  const bring = async (host: string, image: string): Promise<void> => {
    const body = { image, pool: "default" };
    const { operation } = await ok(
      bringImageToHost({ client: service.client, path: { host }, body, query: { wait: 30 } }),
    );
    expect(operation.state).toBe("succeeded");
  };
  const digestsOn = async (host: string): Promise<string[]> =>
    (await copiesOn(host)).map(({ sha256 }) => sha256).sort();

  it("gives way to what comes, the least recently used first, and never what VMs read from", async () => {
    const host = await newHost();
    const used = await newImage(await qcow2Image());
    const vm = await addVm(service, "reader", on(host, used.name));
    const [inUse] = await digestsOn(host);
    const [first, second, third] = [await newImage(), await newImage(), await newImage()];
    await bring(host, first.id);
    await bring(host, second.id);
    // Asked for again: now the second is the one that was not used for longest.
    await bring(host, first.id);
    const before = await digestsOn(host);
    await bring(host, third.id);
    await eventually(async () => (await copiesOn(host)).length).toBe(3);
    const after = await digestsOn(host);
    expect(after).toContain(inUse);
    expect(before.filter((digest) => !after.includes(digest))).toHaveLength(1);
    const evicted = await operationsOf("hostImage.evict", host);
    expect(evicted).toHaveLength(1);
    expect((await volumesOn(host)).filter(({ name }) => name.startsWith("drover-image-"))).toHaveLength(3);
    await bring(host, first.id);
    expect(await operationsOf("hostImage.evict", host)).toEqual(evicted);
    await removeVm(vm.id);
  });

  it("is refused to go while a VM reads from it, and goes by request after that", async () => {
    const host = await newHost();
    const image = await newImage(await qcow2Image());
    const vm = await addVm(service, "holder", on(host, image.name));
    const [copy] = await copiesOn(host);
    const path = { host, image: copy?.id ?? "" };
    expect(await problemOf(evictImageFromHost({ client: service.client, path }))).toMatchObject({
      httpStatus: 409,
      code: "in_use",
    });
    await removeVm(vm.id);
    const { operation } = await ok(evictImageFromHost({ client: service.client, path, query: { wait: 30 } }));
    expect(operation.state).toBe("succeeded");
    expect([await copiesOn(host), await volumesOn(host)]).toEqual([[], []]);
    expect(await problemOf(evictImageFromHost({ client: service.client, path }))).toMatchObject({
      httpStatus: 404,
    });
  });

  it("goes with its image, from a host that is down as soon as it is back", async () => {
    const [up, down] = [await newHost(), await newHost()];
    const image = await newImage();
    await bring(up, image.id);
    await bring(down, image.id);
    await service.sim.setHostDown(`sim+kvm://${down}`, true);
    await ok(
      deleteImage({ client: service.client, path: { image: image.name } }).then(() => ({ data: true })),
    );
    await eventually(() => volumesOn(up)).toEqual([]);
    await eventually(async () => (await copiesOn(down)).map(({ state }) => state)).toEqual(["evicting"]);
    await service.sim.setHostDown(`sim+kvm://${down}`, false);
    await eventually(() => volumesOn(down)).toEqual([]);
    await eventually(() => copiesOn(down)).toEqual([]);
  });

  it("is not brought to a pool that keeps none, or of an image that is none", async () => {
    const host = await newHost();
    const image = await newImage();
    const asking = (body: { image: string; pool: string }) =>
      problemOf(bringImageToHost({ client: service.client, path: { host }, body }));
    expect(await asking({ image: image.id, pool: "none" })).toMatchObject({
      httpStatus: 409,
      code: "capability_unsupported",
    });
    expect(await asking({ image: "00000000-0000-4000-8000-000000000000", pool: "default" })).toMatchObject({
      httpStatus: 404,
    });
  });

  it("leaves with its host, and what was under way there ends", async () => {
    const [deleted, forgotten] = [await newHost(), await newHost()];
    const image = await newImage();
    for (const host of [deleted, forgotten]) await service.sim.setHostDown(`sim+kvm://${host}`, true);
    const operations: string[] = [];
    for (const host of [deleted, forgotten]) {
      const body = { image: image.id, pool: "default" };
      const { operation } = await ok(bringImageToHost({ client: service.client, path: { host }, body }));
      operations.push(operation.id);
    }
    await ok(deleteHost({ client: service.client, path: { host: deleted } }).then(() => ({ data: true })));
    await eventually(async () =>
      problemOf(
        forgetHost({
          client: service.client,
          path: { host: forgotten },
          body: { confirmName: forgotten },
        }).then(({ error, response }) => ({ error: error ?? { code: "forgotten" }, response })),
      ).then(({ code }) => code),
    ).toBe("forgotten");
    expect((await operationEnd(service, operations[0] ?? "")).state).toBe("cancelled");
    expect((await operationEnd(service, operations[1] ?? "")).state).toBe("failed");
    const { db } = service.database;
    expect(await db.hostImage.count({ where: { host: { name: { in: [deleted, forgotten] } } } })).toBe(0);
  });
});
