import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type AttachVmDiskData,
  attachVmDisk,
  createVolume,
  deleteVm,
  detachVmDisk,
  downloadVolume,
  getVm,
  getVolume,
  listVolumes,
  type Operation,
  resizeVolume,
  startVm,
  stopVm,
  type Volume,
} from "../../openapi/sdk/index.ts";
import { addHost, addVm, ok, problemOf, startTestService, type TestService } from "../fixtures/service.ts";

const GIB = 2 ** 30;
const KVM = "sim+kvm://n1?guestStopMs=10";

let service: TestService;

beforeAll(async () => {
  service = await startTestService();
  await addHost(service, "n1", KVM);
  await addHost(service, "x1", "sim+xen://x1?guestStopMs=10");
});

afterAll(async () => {
  await service.stop();
});

const client = () => service.client;
const wait = { wait: 60 };

const attach = async (vm: string, body: AttachVmDiskData["body"]) =>
  await ok(attachVmDisk({ client: client(), path: { vm }, body, query: wait }));
const detach = async (vm: string, disk: string, timeoutSeconds = 60) =>
  await ok(detachVmDisk({ client: client(), path: { vm, disk }, query: { ...wait, timeoutSeconds } }));
const make = async (name: string, host = "n1"): Promise<Volume> =>
  (await ok(createVolume({ client: client(), body: { name, host, sizeGib: 2 }, query: wait }))).volume;
const volumeOf = async (volume: string): Promise<Volume> =>
  await ok(getVolume({ client: client(), path: { volume } }));
const vmOf = async (vm: string) => await ok(getVm({ client: client(), path: { vm } }));

function succeeded(operation: Operation): void {
  expect(operation, JSON.stringify(operation)).toMatchObject({ state: "succeeded" });
}

/** Names of the volumes that the simulated domain of a VM has. */
async function disksOfDomain(vmId: string): Promise<readonly string[]> {
  const [row] = await service.database.db.$queryRaw<{ volumes: { name: string }[] }[]>`
    SELECT definition->'volumes' AS volumes FROM sim.domain WHERE uuid = ${vmId}::uuid`;
  return (row?.volumes ?? []).map(({ name }) => name);
}

async function volumesOnHosts(): Promise<readonly string[]> {
  const rows = await service.database.db.$queryRaw<{ name: string }[]>`SELECT name FROM sim.volume`;
  return rows.map(({ name }) => name);
}

async function deleted(vm: string): Promise<void> {
  succeeded((await ok(deleteVm({ client: client(), path: { vm }, query: wait }))).operation);
}

const onN1 = { placement: { host: "n1" } };

describe.each(["running", "stopped"] as const)("a %s VM", (runPolicy) => {
  const name = `vm-${runPolicy}`;

  it("gets a volume as a disk, and gives it back", async () => {
    const volume = await make(`data-${runPolicy}`);
    const vm = await addVm(service, name, { ...onN1, runPolicy });
    const attached = await attach(name, { name: "data", volume: volume.name ?? "" });
    succeeded(attached.operation);
    expect(attached.operation).toMatchObject({ kind: "vm.attachDisk", targets: [{ name }, {}] });
    expect(attached.vm.generation).toBe(vm.generation + 1);
    expect(attached.vm.status.observedGeneration).toBe(attached.vm.generation);
    expect(attached.vm.status.conditions).toEqual([]);
    expect(attached.vm.spec.disks).toEqual([...vm.spec.disks, { name: "data", volume: volume.name }]);
    expect(await volumeOf(volume.id)).toMatchObject({ vm: { id: vm.id, name }, role: "disk", disk: "data" });
    expect(await disksOfDomain(vm.id)).toContain(volume.nameInPool);

    const { vm: without, operation } = await detach(name, "data");
    succeeded(operation);
    expect(without.spec.disks).toEqual(vm.spec.disks);
    expect(without.status.observedGeneration).toBe(without.generation);
    expect(await disksOfDomain(vm.id)).not.toContain(volume.nameInPool);
    expect(await volumeOf(volume.id)).toMatchObject({ vm: null, role: null, disk: null, state: "ready" });
    expect(await volumesOnHosts()).toContain(volume.nameInPool);
    await deleted(name);
    expect(await volumesOnHosts()).toContain(volume.nameInPool);
  });

  it("gets a new disk, which goes with it or before it", async () => {
    const vm = await addVm(service, name, { ...onN1, runPolicy });
    const before = await volumesOnHosts();
    const { vm: now } = await attach(name, { name: "scratch", sizeGib: 3 });
    expect(now.spec.disks.at(-1)).toEqual({ name: "scratch", sizeGib: 3, deletePolicy: "delete" });
    const { items } = await ok(listVolumes({ client: client(), query: { vm: name } }));
    const scratch = items.find(({ disk }) => disk === "scratch");
    expect(scratch).toMatchObject({ capacityBytes: 3 * GIB, deletePolicy: "delete", name: null });
    succeeded((await detach(name, "scratch")).operation);
    expect(await volumesOnHosts()).toEqual(before);
    await attach(name, { name: "scratch", sizeGib: 3 });
    await deleted(name);
    expect((await volumesOnHosts()).filter((file) => file.includes(vm.id))).toEqual([]);
    const left = await ok(listVolumes({ client: client(), query: { attached: false } }));
    expect(left.items.filter(({ name: own }) => own === null)).toEqual([]);
  });

  it("has a disk that grows, by its spec too", async () => {
    await addVm(service, name, { ...onN1, runPolicy });
    const { items } = await ok(listVolumes({ client: client(), query: { vm: name } }));
    const path = { volume: items[0]?.id ?? "" };
    const grown = await ok(resizeVolume({ client: client(), path, body: { sizeGib: 4 }, query: wait }));
    succeeded(grown.operation);
    expect(grown.volume).toMatchObject({ capacityBytes: 4 * GIB });
    const vm = await vmOf(name);
    expect(vm.spec.disks).toEqual([{ name: "root", sizeGib: 4 }]);
    expect(vm.status.observedGeneration).toBe(vm.generation);
    const smaller = resizeVolume({ client: client(), path, body: { sizeGib: 3 } });
    expect(await problemOf(smaller)).toMatchObject({ code: "invalid_request", httpStatus: 422 });
    await deleted(name);
  });
});

describe("a disk", () => {
  it("that the guest holds is told as such, and nothing is lost", async () => {
    const vm = await addVm(service, "holder", onN1);
    const { vm: has } = await attach("holder", { name: "data", sizeGib: 1 });
    const files = await disksOfDomain(vm.id);
    await service.sim.ignoreShutdown(KVM, vm.id);
    const { vm: still, operation } = await detach("holder", "data", 1);
    expect(operation).toMatchObject({ state: "failed", error: { code: "guest_did_not_let_go" } });
    expect(still.spec).toEqual(has.spec);
    expect(still.status.conditions).toMatchObject([
      { type: "OperationFailed", reason: "guest_did_not_let_go" },
    ]);
    expect(await disksOfDomain(vm.id)).toEqual(files);
    const force = { mode: "force" as const };
    await ok(stopVm({ client: client(), path: { vm: "holder" }, body: force, query: wait }));
    succeeded((await detach("holder", "data")).operation);
    succeeded((await ok(startVm({ client: client(), path: { vm: "holder" }, query: wait }))).operation);
    await deleted("holder");
  });

  it("of a running guest of a type that cannot change it is refused, of a stopped one not", async () => {
    await addVm(service, "xen-1", { placement: { host: "x1" } });
    const asked = attachVmDisk({
      client: client(),
      path: { vm: "xen-1" },
      body: { name: "data", sizeGib: 1 },
    });
    expect(await problemOf(asked)).toMatchObject({ code: "capability_unsupported", httpStatus: 409 });
    await ok(stopVm({ client: client(), path: { vm: "xen-1" }, query: wait }));
    succeeded((await attach("xen-1", { name: "data", sizeGib: 1 })).operation);
    await deleted("xen-1");
  });

  it("is refused where its name is taken, its volume is not free or is elsewhere, or nothing is said", async () => {
    await addVm(service, "refuser", { ...onN1, runPolicy: "stopped" });
    await make("far", "x1");
    const { items } = await ok(listVolumes({ client: client(), query: { vm: "refuser" } }));
    const path = { vm: "refuser" };
    for (const [body, code] of [
      [{ name: "root", sizeGib: 1 }, "name_taken"],
      [{ name: "data", volume: items[0]?.id ?? "" }, "in_use"],
      [{ name: "data", volume: "far" }, "conflict"],
      [{ name: "data", volume: "nowhere" }, "invalid_request"],
      [{ name: "data" }, "invalid_request"],
      [{ name: "data", volume: "far", sizeGib: 1 }, "invalid_request"],
      [{ name: "data", image: "nope" }, "invalid_request"],
    ] as const) {
      expect(await problemOf(attachVmDisk({ client: client(), path, body }))).toMatchObject({ code });
    }
    const none = detachVmDisk({ client: client(), path: { vm: "refuser", disk: "data" } });
    expect(await problemOf(none)).toMatchObject({ code: "not_found" });
    const last = detachVmDisk({ client: client(), path: { vm: "refuser", disk: "root" } });
    expect(await problemOf(last)).toMatchObject({ code: "invalid_state" });
    expect((await vmOf("refuser")).generation).toBe(1);
    await deleted("refuser");
  });

  it("is downloaded from hosts that give content out, which simulated ones do not", async () => {
    await make("unseen");
    const asked = downloadVolume({ client: client(), path: { volume: "unseen" } });
    expect(await problemOf(asked)).toMatchObject({ code: "capability_unsupported", httpStatus: 409 });
  });

  it("that cannot be made leaves no volume and no row", async () => {
    await addVm(service, "full", onN1);
    const before = await volumesOnHosts();
    await service.sim.fillPool(KVM);
    const { operation, vm } = await attach("full", { name: "data", sizeGib: 1 });
    await service.sim.fillPool(KVM, 0);
    expect(operation).toMatchObject({ state: "failed", error: { code: "storage_full" } });
    expect(vm.spec.disks).toHaveLength(1);
    expect(await volumesOnHosts()).toEqual(before);
    const { items } = await ok(listVolumes({ client: client(), query: { attached: false } }));
    expect(items.filter(({ name }) => name === null)).toEqual([]);
    await deleted("full");
  });

  it("is asked for by two VMs at once and comes to one", async () => {
    await make("wanted");
    await addVm(service, "first", onN1);
    await addVm(service, "second", onN1);
    const ends = await Promise.all(
      ["first", "second"].map(
        async (vm) => await attach(vm, { name: "data", volume: "wanted" }).catch(() => null),
      ),
    );
    const won = ends.filter((end) => end?.operation.state === "succeeded");
    expect(won).toHaveLength(1);
    expect((await volumeOf("wanted")).vm?.name).toBe(won[0]?.vm.name);
    await Promise.all([deleted("first"), deleted("second")]);
    expect(await volumeOf("wanted")).toMatchObject({ vm: null, state: "ready" });
  });
});
