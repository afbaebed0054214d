import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  attachVmDisk,
  createVolume,
  deleteVm,
  getVolume,
  listEvents,
  listVolumes,
  updateVolume,
  type Volume,
} from "../../openapi/sdk/index.ts";
import { asId, type InstallationId, newId } from "../../src/lib/ids.ts";
import { volumeName } from "../../src/volumes/volume-names.ts";
import { addHost, addVm, ok, startTestService, type TestService } from "../fixtures/service.ts";

// Volumes on a host that no row stands for.

const PATIENCE = { timeout: 60_000, interval: 100 };

let service: TestService;
let ours: InstallationId;

beforeAll(async () => {
  service = await startTestService({ DROVER_VOLUME_SCAN_SECONDS: "1", DROVER_ORPHAN_GRACE_SECONDS: "3600" });
  await addHost(service, "n1", "sim+kvm://n1");
  const installation = await service.database.db.installation.findFirstOrThrow();
  ours = asId<InstallationId>(installation.id);
});

afterAll(async () => {
  await service.stop();
});

const client = () => service.client;
const wait = { wait: 60 };

async function orphans(): Promise<readonly Volume[]> {
  return (await ok(listVolumes({ client: client(), query: { orphan: true } }))).items;
}

/** A file in the pool that nobody told Drover of. */
async function putOnHost(name: string): Promise<string> {
  await service.database.db.$executeRaw`
    INSERT INTO sim.volume (host_id, pool, name, format, capacity_bytes, allocation_bytes)
    SELECT id, 'default', ${name}, 'qcow2', 1073741824, 4096 FROM sim.host WHERE name = 'n1'`;
  return name;
}

async function namesOnHost(): Promise<readonly string[]> {
  const rows = await service.database.db.$queryRaw<{ name: string }[]>`SELECT name FROM sim.volume`;
  return rows.map(({ name }) => name);
}

const lost = (): string => volumeName(ours, newId(), "disk-root", "qcow2");

describe("a volume with our mark that nothing owns", () => {
  it("is found and shown, and collected after its grace time unless somebody cares for it", async () => {
    const strangers = [
      await putOnHost("somebody-elses.qcow2"),
      await putOnHost(volumeName(newId<InstallationId>(), newId(), "disk-root", "qcow2")),
      await putOnHost(`${lost()}.backup`),
    ];
    const vm = await addVm(service, "owner", { disks: [{ name: "root", sizeGib: 1 }] });
    await ok(createVolume({ client: client(), body: { name: "own", sizeGib: 1 }, query: wait }));
    const names = [await putOnHost(lost()), await putOnHost(lost()), await putOnHost(lost())];
    await expect.poll(async () => (await orphans()).length, PATIENCE).toBe(3);
    const found = await orphans();
    expect(found.map(({ nameInPool }) => nameInPool).sort()).toEqual(names.toSorted());
    for (const volume of found) {
      expect(volume).toMatchObject({ name: null, host: "n1", pool: "default", state: "ready", vm: null });
      expect(volume).toMatchObject({ format: "qcow2", capacityBytes: 2 ** 30, allocationBytes: 4096 });
      expect(volume.orphanSince).not.toBeNull();
    }
    const told = async () => {
      const { items } = await ok(listEvents({ client: client(), query: { type: ["volume.orphaned"] } }));
      return items.map(({ subject }) => subject.id).sort();
    };
    // Events are numbered a moment after the change.
    await expect.poll(told, PATIENCE).toEqual(found.map(({ id }) => id).sort());

    const [kept, attached, left] = found;
    const path = { volume: kept?.id ?? "" };
    await ok(updateVolume({ client: client(), path, body: { deletePolicy: "retain" } }));
    const body = { name: "found", volume: attached?.id ?? "" };
    await ok(attachVmDisk({ client: client(), path: { vm: vm.id }, body, query: wait }));
    expect((await orphans()).map(({ id }) => id)).toEqual([left?.id]);

    await service.startAnother({ DROVER_ORPHAN_GRACE_SECONDS: "1" });
    await expect.poll(orphans, PATIENCE).toEqual([]);
    await expect.poll(namesOnHost, PATIENCE).not.toContain(left?.nameInPool);
    const there = await namesOnHost();
    for (const name of [...strangers, kept?.nameInPool, attached?.nameInPool]) expect(there).toContain(name);
    expect(await ok(getVolume({ client: client(), path }))).toMatchObject({ orphanSince: null, vm: null });
    const volumes = (await ok(listVolumes({ client: client() }))).items;
    for (const { nameInPool } of volumes) expect(there).toContain(nameInPool);
  });

  it("is forgotten where it goes by itself", async () => {
    // Nothing is collected on a host with a domain of ours that no VM stands for: it may be that domain's.
    await service.sim.addForeignDomain("sim+kvm://n1", { name: "unmanaged", installationId: ours });
    const name = await putOnHost(lost());
    await expect
      .poll(async () => (await orphans()).map(({ nameInPool }) => nameInPool), PATIENCE)
      .toEqual([name]);
    await expect
      .poll(
        async () =>
          (await orphans()).every(({ orphanSince }) => Date.now() - Date.parse(orphanSince ?? "") > 4000),
        PATIENCE,
      )
      .toBe(true);
    expect(await namesOnHost()).toContain(name);
    await service.database.db.$executeRaw`DELETE FROM sim.volume WHERE name = ${name}`;
    await expect.poll(orphans, PATIENCE).toEqual([]);
    await ok(deleteVm({ client: client(), path: { vm: "owner" }, query: wait }));
  });
});

describe("the look into pools", () => {
  it("tells what volumes take of them", async () => {
    await ok(createVolume({ client: client(), body: { name: "sized", sizeGib: 1 }, query: wait }));
    const read = async () => await ok(getVolume({ client: client(), path: { volume: "sized" } }));
    await expect.poll(async () => (await read()).allocationBytes, PATIENCE).toBe(196_608);
    expect((await read()).observedAt).not.toBeNull();
  });
});
