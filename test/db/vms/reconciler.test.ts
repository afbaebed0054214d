import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { recordInventory } from "../../../src/hosts/host-observation-store.ts";
import type { ObservedDomain } from "../../../src/hypervisors/hypervisor.ts";
import { type HostId, type InstallationId, newId, type ProjectId, type VmId } from "../../../src/lib/ids.ts";
import { vmObservations } from "../../../src/vms/vm-reconciler.ts";
import { getVm } from "../../../src/vms/vm-store.ts";
import { createTestDatabase, type TestDatabase } from "../../fixtures/database.ts";
import { domainOf, inventoryOf } from "../../fixtures/fake-host.ts";

let database: TestDatabase;
let host: HostId;
const projectId = newId<ProjectId>();
const ours = newId<InstallationId>();

beforeAll(async () => {
  database = await createTestDatabase();
  const { db } = database;
  await db.project.create({ data: { id: projectId, name: "default" } });
});
afterAll(async () => {
  await database.drop();
});

/** The n-th second of a time. */
function at(second: number): Date {
  return new Date(Date.UTC(2026, 0, 1, 0, 0, second));
}

async function addHost(): Promise<HostId> {
  const id = newId<HostId>();
  const data = { id, name: id, uri: `sim+kvm://${id}`, driver: "sim", hypervisor: "kvm" };
  await database.db.host.create({ data });
  return id;
}

async function addVm(overrides: object = {}): Promise<VmId> {
  host = await addHost();
  const id = newId<VmId>();
  await database.db.vm.create({
    data: {
      id,
      projectId,
      name: id,
      spec: { cpu: { count: 1 }, memoryMib: 256 },
      phase: "ready",
      power: "running",
      hostId: host,
      domainUuid: id,
      observedAt: at(1),
      ...overrides,
    },
  });
  return id;
}

/** An inventory that proves these to be gone, if it does not show them. Returns those that it wants another one for. */
async function inventoryProving(
  proven: readonly string[],
  when: Date,
  ...domains: readonly ObservedDomain[]
): Promise<readonly string[]> {
  return await database.db.transaction(async (tx) => {
    const found = inventoryOf(domains);
    const { recorded } = await recordInventory(tx, host, found, ours, when);
    return recorded ? await vmObservations.inventory(tx, host, found, when, proven) : [];
  });
}

/** What it does not show was not seen before either. */
async function inventory(when: Date, ...domains: readonly ObservedDomain[]): Promise<void> {
  const vms = await database.db.vm.findMany({ select: { id: true } });
  const proven = vms.map(({ id }) => id);
  expect(await inventoryProving(proven, when, ...domains)).toEqual([]);
}

/** Whether an inventory is wanted. */
async function event(when: Date, id: VmId, domain: ObservedDomain | null): Promise<boolean> {
  const looked = domain === null ? { seen: [], gone: [id] } : { seen: [domain], gone: [] };
  const missed = await database.db.transaction((tx) => vmObservations.domains(tx, host, looked, when));
  expect(missed).toEqual(missed.length === 0 ? [] : [id]);
  return missed.length > 0;
}

async function seen(id: VmId): Promise<string> {
  const vm = await getVm(database.db, id);
  return [vm?.power, ...(vm?.conditions.map(({ type }) => type) ?? [])].join(" ");
}

async function eventsOf(id: VmId): Promise<string[]> {
  const rows = await database.db.event.findMany({ where: { subjectId: id }, orderBy: { rowId: "asc" } });
  return rows.map(({ type, data }) => {
    const { from, to } = data as { from?: string; to?: string };
    return `${type} ${from ?? ""} ${to ?? ""}`;
  });
}

/** An operation that is the VM's own now. */
async function occupy(id: VmId, active: boolean): Promise<void> {
  const operationId = newId<VmId>();
  await database.db.operation.create({
    data: {
      id: operationId,
      kind: "vm.start",
      state: "running",
      input: {},
      targets: [],
      turn: 1,
      actor: "test",
      deadline: at(59),
      stepsTotal: 1,
      subjects: {
        create: { kind: "vm", subjectId: id, mode: "exclusive", seq: 1, unfinished: true, active },
      },
    },
  });
}

describe("what an inventory says of a VM", () => {
  it.each(["off", "crashed", "paused", "saved"] as const)(
    "shows that it is %s, with an event",
    async (power) => {
      const id = await addVm();
      await inventory(at(2), domainOf(id, { power, reason: "because" }));
      expect(await seen(id)).toBe(power);
      const vm = await getVm(database.db, id);
      expect(vm).toMatchObject({ powerReason: "because", observedAt: at(2) });
      expect(await eventsOf(id)).toEqual([`vm.power.changed running ${power}`]);
    },
  );

  it("says nothing when nothing changed, and tells of no event for a new reason alone", async () => {
    const id = await addVm();
    await inventory(at(2), domainOf(id));
    expect((await getVm(database.db, id))?.observedAt).toEqual(at(1));
    await inventory(at(3), domainOf(id, { reason: "unpaused" }));
    expect(await getVm(database.db, id)).toMatchObject({ powerReason: "unpaused" });
    expect(await eventsOf(id)).toEqual([]);
  });

  it("shows that its domain is missing, once, and that it is back", async () => {
    const id = await addVm();
    await inventory(at(2));
    await inventory(at(3));
    expect(await seen(id)).toBe("off DomainMissing");
    expect((await getVm(database.db, id))?.conditions[0]?.since).toBe(at(2).toISOString());
    await inventory(at(4), domainOf(id));
    expect(await seen(id)).toBe("running");
    await inventory(at(5), domainOf(id, { power: "off" }));
    await inventory(at(6));
    await inventory(at(7), domainOf(id, { power: "off" }));
    expect(await seen(id)).toBe("off");
    expect(await eventsOf(id)).toEqual([
      "vm.power.changed running off",
      "vm.power.changed off running",
      "vm.power.changed running off",
    ]);
  });

  it("takes nothing for missing that was not seen once, and wants to look again", async () => {
    const id = await addVm();
    expect(await inventoryProving([], at(2))).toEqual([id]);
    expect(await inventoryProving([newId<VmId>()], at(3))).toEqual([id]);
    expect(await seen(id)).toBe("running");
    expect(await inventoryProving([], at(4), domainOf(id))).toEqual([]);
    expect(await inventoryProving([id], at(5))).toEqual([]);
    expect(await seen(id)).toBe("off DomainMissing");
    // What is known needs no proof again.
    await database.db.transaction((tx) => vmObservations.unreachable(tx, host));
    expect(await inventoryProving([], at(6))).toEqual([]);
    expect(await seen(id)).toBe("off DomainMissing");
  });

  it("wants to look again for no VM that has none by right, or that an operation works on", async () => {
    for (const phase of ["provisioning", "deleting"]) {
      await addVm({ phase });
      expect(await inventoryProving([], at(2))).toEqual([]);
    }
    await addVm({ phase: "failed", power: "off" });
    expect(await inventoryProving([], at(2))).toEqual([]);
    const busy = await addVm();
    await occupy(busy, true);
    expect(await inventoryProving([], at(2))).toEqual([]);
  });

  it("shows what is missing after the host was silent too", async () => {
    const id = await addVm();
    await inventory(at(2));
    await database.db.transaction((tx) => vmObservations.unreachable(tx, host));
    expect(await seen(id)).toBe("unknown DomainMissing");
    await inventory(at(3));
    expect(await seen(id)).toBe("off DomainMissing");
  });

  it.each(["provisioning", "deleting"])("takes no VM for missing that is %s", async (phase) => {
    const id = await addVm({ phase });
    await inventory(at(2));
    expect(await seen(id)).toBe("running");
  });

  it("switches a VM off whose create failed and left no domain, without calling it missing", async () => {
    const id = await addVm({ phase: "failed" });
    await inventory(at(2));
    expect(await seen(id)).toBe("off");
  });

  it("leaves a VM to the operation that works on it, not to one that waits", async () => {
    const busy = await addVm();
    await occupy(busy, true);
    await inventory(at(2));
    expect(await seen(busy)).toBe("running");
    const waiting = await addVm();
    await occupy(waiting, false);
    await inventory(at(2));
    expect(await seen(waiting)).toBe("off DomainMissing");
  });

  it("says nothing of a VM on another host", async () => {
    const id = await addVm();
    host = await addHost();
    await inventory(at(2), domainOf(id, { power: "off" }));
    expect(await seen(id)).toBe("running");
  });
});

describe("an observation that comes late", () => {
  it("never overwrites a newer one", async () => {
    const id = await addVm({ observedAt: at(5) });
    await event(at(4), id, domainOf(id, { power: "off" }));
    expect(await seen(id)).toBe("running");
    await inventory(at(3));
    expect(await seen(id)).toBe("running");
    await event(at(5), id, domainOf(id, { power: "off" }));
    expect(await seen(id)).toBe("off");
  });

  it("never overwrites what a later inventory confirmed without writing it", async () => {
    const id = await addVm();
    await inventory(at(6), domainOf(id));
    await event(at(4), id, domainOf(id, { power: "off" }));
    expect(await seen(id)).toBe("running");
  });
});

describe("an event of a domain", () => {
  it("shows its power; that there is none is for the next inventory to say", async () => {
    const id = await addVm();
    await event(at(2), id, domainOf(id, { power: "crashed" }));
    expect(await seen(id)).toBe("crashed");
    await event(at(3), id, null);
    expect(await seen(id)).toBe("crashed");
  });
});

describe("a look that finds no domain", () => {
  it("wants an inventory for a VM that should have one, until that has told it", async () => {
    const id = await addVm();
    expect(await event(at(2), id, domainOf(id))).toBe(false);
    expect(await event(at(3), id, null)).toBe(true);
    await inventory(at(4));
    expect(await seen(id)).toBe("off DomainMissing");
    expect(await event(at(5), id, null)).toBe(false);
  });

  it("wants none for a VM that an operation works on, or that has none by right, or for no VM", async () => {
    const busy = await addVm();
    await occupy(busy, true);
    expect(await event(at(2), busy, null)).toBe(false);
    for (const phase of ["provisioning", "failed", "deleting"])
      expect(await event(at(2), await addVm({ phase }), null)).toBe(false);
    expect(await event(at(2), newId<VmId>(), null)).toBe(false);
  });
});

describe("a silent host", () => {
  it("makes power unknown, never off, and leaves when it was last seen", async () => {
    const id = await addVm();
    const silence = () => database.db.transaction((tx) => vmObservations.unreachable(tx, host));
    await silence();
    await silence();
    expect(await getVm(database.db, id)).toMatchObject({
      power: "unknown",
      powerReason: "hostUnreachable",
      observedAt: at(1),
    });
    await inventory(at(2), domainOf(id));
    expect(await seen(id)).toBe("running");
    expect(await eventsOf(id)).toEqual([
      "vm.power.changed running unknown",
      "vm.power.changed unknown running",
    ]);
  });
});
