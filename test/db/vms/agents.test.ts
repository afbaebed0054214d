import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { AgentWord } from "../../../src/hosts/observation-sink.ts";
import type { AgentReport, SeenAddress } from "../../../src/hypervisors/hypervisor.ts";
import { type HostId, newId, type ProjectId, type VmId } from "../../../src/lib/ids.ts";
import { vmObservations } from "../../../src/vms/vm-reconciler.ts";
import { getVmToView } from "../../../src/vms/vm-store.ts";
import { viewOf } from "../../../src/vms/vm-view.ts";
import { createTestDatabase, type TestDatabase } from "../../fixtures/database.ts";
import { domainOf, inventoryOf } from "../../fixtures/fake-host.ts";

let database: TestDatabase;
const projectId = newId<ProjectId>();

beforeAll(async () => {
  database = await createTestDatabase();
  await database.db.project.create({ data: { id: projectId, name: "default" } });
});
afterAll(async () => {
  await database.drop();
});

function at(second: number): Date {
  return new Date(Date.UTC(2026, 0, 1, 0, 0, second));
}

interface Place {
  readonly host: HostId;
  readonly vm: VmId;
  readonly mac: string;
}

let macs = 0;

/** A host with one running VM that has a NIC. */
async function place(): Promise<Place> {
  const { db } = database;
  const [host, vm] = [newId<HostId>(), newId<VmId>()];
  const mac = `52:54:00:00:00:${(++macs).toString(16).padStart(2, "0")}`;
  await db.host.create({
    data: {
      ...{ id: host, name: host, uri: `sim+kvm://${host}`, driver: "sim", hypervisor: "kvm" },
      ...{ state: "ready" },
    },
  });
  const spec = { cpu: { count: 1 }, memoryMib: 256, disks: [], nics: [] };
  const nics = { create: { name: "eth0", position: 0, network: "default", macAddress: mac } };
  await db.vm.create({
    data: {
      ...{ id: vm, projectId, name: vm, spec, phase: "ready", hostId: host, domainUuid: vm, nics },
      ...{ power: "running", observedAt: at(1) },
    },
  });
  return { host, vm, mac };
}

async function see(
  { host, vm }: Place,
  second: number,
  agent: "connected" | "disconnected" | undefined,
): Promise<void> {
  const looked = { seen: [domainOf(vm, { agent })], gone: [] };
  await database.db.transaction((tx) => vmObservations.domains(tx, host, looked, at(second)));
}

async function inventory({ host, vm }: Place, second: number, ...seen: SeenAddress[]): Promise<void> {
  const found = inventoryOf([domainOf(vm, { agent: "connected" })], { addresses: seen });
  await database.db.transaction((tx) => vmObservations.inventory(tx, host, found, at(second), []));
}

async function say({ host }: Place, ...words: AgentWord[]): Promise<void> {
  await database.db.transaction((tx) => vmObservations.agents(tx, host, words));
}

function told({ vm }: Pick<Place, "vm">, second: number, report: Partial<AgentReport> = {}): AgentWord {
  const whole = { hostName: "web", osName: "Debian", kernelRelease: "6.1", addresses: [], ...report };
  return { uuid: vm, askedAt: at(second), report: whole, error: null };
}

function silent({ vm }: Place, second: number): AgentWord {
  return { uuid: vm, askedAt: at(second), report: null, error: "it did not answer" };
}

async function statusOf({ vm }: Place) {
  const found = await getVmToView(database.db, vm);
  if (found === null) throw new Error("the VM is gone");
  return viewOf(found.vm, found.around).status;
}

async function eventsOf({ vm }: Place): Promise<unknown[]> {
  const rows = await database.db.event.findMany({ where: { subjectId: vm }, orderBy: { rowId: "asc" } });
  return rows.map(({ type, data }) => [type, data]);
}

const NOTHING = { hostName: null, osName: null, kernelRelease: null, observedAt: null, error: null };
const WEB = { hostName: "web", osName: "Debian", kernelRelease: "6.1" };

describe("the agent of a VM", () => {
  it("is what was last seen of it, and comes and goes with an event", async () => {
    const here = await place();
    expect((await statusOf(here)).agent).toEqual({ state: "unsupported", ...NOTHING });
    await see(here, 2, "disconnected");
    expect((await statusOf(here)).agent).toEqual({ state: "disconnected", ...NOTHING });
    await see(here, 4, "connected");
    expect((await statusOf(here)).agent).toEqual({ state: "connected", ...NOTHING });
    // Asked for earlier, and told later.
    await see(here, 3, "disconnected");
    expect((await statusOf(here)).agent.state).toBe("connected");
    await see(here, 5, "disconnected");
    await see(here, 6, undefined);
    expect((await statusOf(here)).agent.state).toBe("unsupported");
    expect(await eventsOf(here)).toEqual([
      ["vm.agent.changed", { state: "connected" }],
      ["vm.agent.changed", { state: "disconnected" }],
    ]);
  });

  it("is not connected where the VM is off, and unknown where its host is silent", async () => {
    const here = await place();
    await see(here, 2, "connected");
    const { db } = database;
    await db.vm.update({ where: { id: here.vm }, data: { power: "off" } });
    expect((await statusOf(here)).agent.state).toBe("disconnected");
    await db.transaction((tx) => vmObservations.unreachable(tx, here.host));
    expect((await statusOf(here)).agent).toEqual({ state: "unknown", ...NOTHING });
  });

  it("tells of its guest, as long as it is there, with an event where that is news", async () => {
    const here = await place();
    await see(here, 2, "connected");
    await say(here, told(here, 3));
    const observedAt = at(3).toISOString();
    expect((await statusOf(here)).agent).toEqual({ state: "connected", ...WEB, observedAt, error: null });
    await say(here, told(here, 4));
    expect((await statusOf(here)).agent.observedAt).toBe(at(4).toISOString());
    await say(here, told(here, 5, { hostName: "db" }));
    await see(here, 6, "disconnected");
    expect((await statusOf(here)).agent).toEqual({ state: "disconnected", ...NOTHING });
    const news = { state: "connected", ...WEB, error: null };
    expect(await eventsOf(here)).toEqual([
      ["vm.agent.changed", { state: "connected" }],
      ["vm.agent.changed", news],
      ["vm.agent.changed", { ...news, hostName: "db" }],
      ["vm.agent.changed", { state: "disconnected" }],
    ]);
  });

  it("that says nothing any more keeps what it told, and shows why", async () => {
    const here = await place();
    await see(here, 2, "connected");
    await say(here, silent(here, 3));
    expect((await statusOf(here)).agent).toEqual({
      ...{ state: "connected", ...NOTHING, error: "it did not answer" },
    });
    await say(here, told(here, 4));
    await say(here, silent(here, 5));
    const observedAt = at(4).toISOString();
    expect((await statusOf(here)).agent).toMatchObject({ ...WEB, observedAt, error: "it did not answer" });
    await say(here, told(here, 6));
    expect((await statusOf(here)).agent.error).toBeNull();
  });

  it("is heard for VMs of its own host alone", async () => {
    const [here, there] = [await place(), await place()];
    await see(there, 2, "connected");
    await say(here, told(there, 3));
    expect((await statusOf(there)).agent.hostName).toBeNull();
  });
});

describe("the addresses that an agent tells", () => {
  it("stand beside what the host saw, once each and by the best source, until it goes", async () => {
    const here = await place();
    await see(here, 2, "connected");
    const { mac } = here;
    const addresses = ["10.0.0.5", "10.0.0.6", "10.0.0.7"].map((address) => ({ macAddress: mac, address }));
    const onNic = (address: string, source: string) => ({ address, nic: "eth0", source });
    await inventory(here, 3, { macAddress: mac, address: "10.0.0.5", source: "lease" });
    await say(here, told(here, 4, { addresses }));
    const all = [onNic("10.0.0.5", "lease"), onNic("10.0.0.6", "agent"), onNic("10.0.0.7", "agent")];
    expect((await statusOf(here)).addresses).toEqual(all);

    // The next inventory is of the same opinion: nothing changes, and nothing is told.
    const before = await eventsOf(here);
    await inventory(here, 5, { macAddress: mac, address: "10.0.0.5", source: "lease" });
    await say(here, told(here, 6, { addresses }));
    expect((await statusOf(here)).addresses).toEqual(all);
    expect(await eventsOf(here)).toEqual(before);

    await say(here, silent(here, 7));
    expect((await statusOf(here)).addresses).toEqual(all);
    await say(here, told(here, 8, { addresses: addresses.slice(0, 2) }));
    expect((await statusOf(here)).addresses).toEqual(all.slice(0, 2));
    await see(here, 9, "disconnected");
    expect((await statusOf(here)).addresses).toEqual(all.slice(0, 1));
  });

  it("are those of its own VM's NICs: it does not speak for others", async () => {
    const [here, other] = [await place(), await place()];
    await see(here, 2, "connected");
    await see(other, 2, "connected");
    const addresses = [other.mac, "52:54:00:ff:ff:ff"].map((macAddress) => ({
      ...{ macAddress, address: "10.0.0.9" },
    }));
    await say(here, told(here, 3, { addresses }));
    await inventory(here, 4);
    await inventory(other, 4);
    expect((await statusOf(here)).addresses).toEqual([]);
    expect((await statusOf(other)).addresses).toEqual([]);
  });
});
