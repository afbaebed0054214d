import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type CreateVolumeData,
  createVolume,
  deleteImage,
  deleteVm,
  deleteVolume,
  getVolume,
  type ListVolumesData,
  listPools,
  listVolumes,
  updateVolume,
  uploadImage,
  type Volume,
} from "../../openapi/sdk/index.ts";
import { addHost, addVm, ok, problemOf, startTestService, type TestService } from "../fixtures/service.ts";

const MIB = 2 ** 20;
const GIB = 2 ** 30;

let service: TestService;

beforeAll(async () => {
  service = await startTestService();
  await addHost(service, "n1", "sim+kvm://n1?poolGib=100");
  await addHost(service, "n2", "sim+kvm://n2?poolGib=50");
});

afterAll(async () => {
  await service.stop();
});

const client = () => service.client;

async function volumesOf(query: ListVolumesData["query"]): Promise<readonly Volume[]> {
  return (await ok(listVolumes({ client: client(), ...(query === undefined ? {} : { query }) }))).items;
}

/** Of all but the copies of images, which go when nobody needs them. */
async function namesOnHosts(): Promise<readonly string[]> {
  const rows = await service.database.db.$queryRaw<
    { name: string }[]
  >`SELECT name FROM sim.volume WHERE name NOT LIKE 'drover-image-%' ORDER BY name`;
  return rows.map(({ name }) => name);
}

/** Deletes a VM and waits until it is gone. */
async function deleted(name: string): Promise<void> {
  const { operation } = await ok(deleteVm({ client: client(), path: { vm: name }, query: { wait: 60 } }));
  expect(operation).toMatchObject({ state: "succeeded" });
}

describe("the volumes of a VM", () => {
  it("are listed with what they are, where they are and whose they are", async () => {
    const disks = [
      { name: "root", sizeGib: 2 },
      { name: "data", sizeGib: 3, deletePolicy: "retain" as const },
    ];
    const vm = await addVm(service, "lister", { disks, cloudInit: {}, placement: { host: "n1" } });
    const listed = await volumesOf({ vm: "lister" });
    expect(listed).toMatchObject([
      { role: "disk", disk: "root", capacityBytes: 2 * GIB, deletePolicy: "delete", format: "qcow2" },
      { role: "disk", disk: "data", capacityBytes: 3 * GIB, deletePolicy: "retain" },
      { role: "seed", disk: null, format: "raw", deletePolicy: "delete" },
    ]);
    for (const volume of listed) {
      expect(volume).toMatchObject({ name: null, host: "n1", pool: "default", state: "ready", error: null });
      expect(volume).toMatchObject({ vm: { id: vm.id, name: "lister" }, orphanSince: null, operations: [] });
      expect(await namesOnHosts()).toContain(volume.nameInPool);
      expect(await ok(getVolume({ client: client(), path: { volume: volume.id } }))).toEqual(volume);
    }
    expect(vm.spec.disks).toEqual(disks);
    expect(await volumesOf({ vm: vm.id })).toEqual(listed);
    expect(await volumesOf({ vm: "lister", host: "n2" })).toEqual([]);
    expect(await volumesOf({ vm: "lister", pool: "other" })).toEqual([]);
    expect(await volumesOf({ vm: "lister", attached: false })).toEqual([]);
    expect(await volumesOf({ vm: "lister", orphan: false })).toEqual(listed);
    expect(await volumesOf({ orphan: true })).toEqual([]);
    await deleted("lister");
  });

  it("come in pages, in the order of their making and against it", async () => {
    const disks = ["a", "b", "c"].map((name) => ({ name, sizeGib: 1 }));
    await addVm(service, "pager", { disks, runPolicy: "stopped" });
    const walk = async (orderBy: "createdAt" | "-createdAt"): Promise<string[]> => {
      const found: string[] = [];
      let pageToken: string | undefined;
      do {
        const query = {
          vm: "pager",
          orderBy,
          pageSize: 2,
          ...(pageToken === undefined ? {} : { pageToken }),
        };
        const page = await ok(listVolumes({ client: client(), query }));
        found.push(...page.items.map(({ id }) => id));
        pageToken = page.nextPageToken;
      } while (pageToken !== undefined);
      return found;
    };
    const up = await walk("createdAt");
    expect(new Set(up).size).toBe(3);
    expect(await walk("-createdAt")).toEqual(up.toReversed());
    const wrong = { vm: "pager", pageToken: "nonsense" };
    expect(await problemOf(listVolumes({ client: client(), query: wrong }))).toMatchObject({
      httpStatus: 422,
    });
    await deleted("pager");
  });

  it("go with it, save those that are to be retained", async () => {
    const disks = [
      { name: "root", sizeGib: 1 },
      { name: "kept", sizeGib: 1, deletePolicy: "retain" as const },
    ];
    await addVm(service, "keeper", { disks });
    const [root, kept] = await volumesOf({ vm: "keeper" });
    await deleted("keeper");
    expect(await problemOf(getVolume({ client: client(), path: { volume: root?.id ?? "" } }))).toMatchObject({
      code: "not_found",
    });
    const left = await ok(getVolume({ client: client(), path: { volume: kept?.id ?? "" } }));
    expect(left).toMatchObject({ vm: null, role: null, disk: null, state: "ready", orphanSince: null });
    expect(await volumesOf({ attached: false })).toContainEqual(left);
    const names = await namesOnHosts();
    expect(names).toContain(left.nameInPool);
    expect(names).not.toContain(root?.nameInPool);
  });

  it("take labels and another delete policy, under their ETag", async () => {
    await addVm(service, "patched", { disks: [{ name: "root", sizeGib: 1 }], runPolicy: "stopped" });
    const [volume] = await volumesOf({ vm: "patched" });
    const path = { volume: volume?.id ?? "" };
    const body = { labels: { tier: "db" }, deletePolicy: "retain" as const };
    const changed = await ok(updateVolume({ client: client(), path, body }));
    expect(changed).toMatchObject({ ...body, generation: 2 });
    expect(await ok(updateVolume({ client: client(), path, body }))).toEqual(changed);
    expect(await volumesOf({ labelSelector: "tier=db" })).toEqual([changed]);
    const headers = { "If-Match": '"1"' };
    const late = updateVolume({ client: client(), path, body: { labels: { tier: null } }, headers });
    expect(await problemOf(late)).toMatchObject({ code: "precondition_failed" });
    await deleted("patched");
    expect(await ok(getVolume({ client: client(), path }))).toMatchObject({
      vm: null,
      labels: { tier: "db" },
    });
  });
});

describe("a volume of its own", () => {
  const path = { volume: "data-1" };
  /** Asks for a volume and waits until its operation has ended. */
  const made = async (body: CreateVolumeData["body"]) =>
    await ok(createVolume({ client: client(), body, query: { wait: 60 } }));
  const gone = async (volume: string) => {
    const { operation } = await ok(deleteVolume({ client: client(), path: { volume }, query: { wait: 60 } }));
    expect(operation).toMatchObject({ state: "succeeded" });
  };

  it("is made empty where there is the most room, and deleted", async () => {
    const { volume, operation } = await made({ name: "data-1", sizeGib: 5, labels: { tier: "x" } });
    expect(operation).toMatchObject({ kind: "volume.create", state: "succeeded" });
    expect(volume).toMatchObject({
      ...{
        name: "data-1",
        host: "n1",
        pool: "default",
        state: "ready",
        format: "qcow2",
        vm: null,
        role: null,
      },
      ...{ capacityBytes: 5 * GIB, deletePolicy: "retain", source: { kind: "empty" }, labels: { tier: "x" } },
    });
    expect(volume.nameInPool).toContain(volume.id);
    expect(await namesOnHosts()).toContain(volume.nameInPool);
    expect(await ok(getVolume({ client: client(), path }))).toMatchObject({ id: volume.id });
    expect(
      await problemOf(createVolume({ client: client(), body: { name: "data-1", sizeGib: 1 } })),
    ).toMatchObject({
      code: "name_taken",
    });
    await gone("data-1");
    expect(await namesOnHosts()).not.toContain(volume.nameInPool);
    expect(await problemOf(getVolume({ client: client(), path }))).toMatchObject({ code: "not_found" });
  });

  it("is made from an image, which is free again afterwards", async () => {
    const body = new Blob([Buffer.alloc(MIB, 7)]);
    const image = await ok(
      uploadImage({ client: client(), path: { image: "seed-disk" }, query: { kind: "disk" }, body }),
    );
    const { volume } = await made({
      ...{ name: "copy", host: "n2", sizeGib: 2 },
      source: { kind: "image", image: "seed-disk" },
    });
    expect(volume).toMatchObject({ state: "ready", host: "n2", format: "raw", capacityBytes: 2 * GIB });
    expect(volume.source).toEqual({ kind: "image", image: image.id });
    await ok(deleteImage({ client: client(), path: { image: "seed-disk" } }).then(() => ({ data: true })));
    expect(await ok(getVolume({ client: client(), path: { volume: "copy" } }))).toEqual(volume);
    await gone("copy");
  });

  it.each([
    ["no size", { name: "x" }, "invalid_request", 422],
    ["an unknown image", { name: "x", source: { kind: "image", image: "nope" } }, "invalid_request", 422],
    ["an unknown host", { name: "x", sizeGib: 1, host: "nope" }, "no_placement", 409],
    ["an unknown pool", { name: "x", sizeGib: 1, pool: "nope" }, "no_placement", 409],
    ["more room than there is", { name: "x", sizeGib: 60, host: "n2", format: "raw" }, "no_placement", 409],
  ] as const)("is refused with %s, and nothing is kept", async (_what, body, code, httpStatus) => {
    const refusal = await problemOf(createVolume({ client: client(), body }));
    expect(refusal).toMatchObject({ code, httpStatus });
    expect(await problemOf(getVolume({ client: client(), path: { volume: "x" } }))).toMatchObject({
      code: "not_found",
    });
  });

  it("that does not fit when it is written says which pool and how large, and leaves nothing", async () => {
    const before = await namesOnHosts();
    await service.sim.fillPool("sim+kvm://n2?poolGib=50");
    const { volume, operation } = await made({ name: "big", host: "n2", sizeGib: 3 });
    await service.sim.fillPool("sim+kvm://n2?poolGib=50", 0);
    expect(operation.state).toBe("failed");
    expect(operation.error).toMatchObject({
      code: "storage_full",
      retry: "afterCapacity",
      details: { pool: "default", neededBytes: 3 * GIB },
    });
    expect(operation.error?.message).toContain('Pool "default" of host "n2"');
    expect(volume).toMatchObject({ state: "failed", error: { code: "storage_full" } });
    expect(await namesOnHosts()).toEqual(before);
    await gone("big");
  });

  it("of a VM is not deleted by itself", async () => {
    await addVm(service, "owner", { disks: [{ name: "root", sizeGib: 1 }], runPolicy: "stopped" });
    const [volume] = await volumesOf({ vm: "owner" });
    const refusal = await problemOf(deleteVolume({ client: client(), path: { volume: volume?.id ?? "" } }));
    expect(refusal).toMatchObject({ code: "in_use", httpStatus: 409 });
    expect(refusal["detail"]).toContain("DELETE /v1/vms/owner/disks/root");
    await deleted("owner");
  });
});

describe("pools", () => {
  it("are listed over all hosts, with what they have and what is free", async () => {
    const { items } = await ok(listPools({ client: client() }));
    expect(items).toMatchObject([
      { host: { name: "n1" }, name: "default", type: "dir", active: true, capacityBytes: 100 * GIB },
      { host: { name: "n2" }, name: "default", type: "dir", active: true, capacityBytes: 50 * GIB },
    ]);
    for (const { capacityBytes, availableBytes, allocationBytes } of items)
      expect(availableBytes + allocationBytes).toBe(capacityBytes);
    const first = await ok(listPools({ client: client(), query: { pageSize: 1 } }));
    const second = await ok(
      listPools({ client: client(), query: { pageSize: 1, pageToken: first.nextPageToken ?? "" } }),
    );
    expect([...first.items, ...second.items]).toEqual(items);
    expect((await ok(listPools({ client: client(), query: { host: "n2" } }))).items).toEqual(items.slice(1));
    expect((await ok(listPools({ client: client(), query: { type: "logical" } }))).items).toEqual([]);
  });
});
