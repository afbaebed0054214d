import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  forgetDomains,
  recordDomains,
  recordInventory,
  recordUnreachable,
} from "../../../src/hosts/host-observation-store.ts";
import { domainsOnHost } from "../../../src/hosts/host-store.ts";
import type { HostInventory } from "../../../src/hypervisors/hypervisor.ts";
import { type HostId, type InstallationId, newId } from "../../../src/lib/ids.ts";
import { createTestDatabase, execute, type TestDatabase } from "../../fixtures/database.ts";
import { domainOf, inventoryOf } from "../../fixtures/fake-host.ts";

let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(async () => {
  await database.drop();
});

const ours = newId<InstallationId>();

async function addHost(): Promise<HostId> {
  const id = newId<HostId>();
  const data = { id, name: id, uri: `sim+kvm://${id}`, driver: "sim", hypervisor: "kvm" };
  await database.db.host.create({ data });
  return id;
}

/** The n-th second of a time. */
function at(second: number): Date {
  return new Date(Date.UTC(2026, 0, 1, 0, 0, second));
}

async function record(host: HostId, inventory: HostInventory, when: Date) {
  return await database.db.transaction((tx) => recordInventory(tx, host, inventory, ours, when));
}

async function powersOn(host: HostId): Promise<Record<string, string>> {
  return Object.fromEntries((await domainsOnHost(database.db, host)).map(({ uuid, power }) => [uuid, power]));
}

async function eventsOf(host: HostId): Promise<string[]> {
  const rows = await database.db.event.findMany({ where: { subjectId: host }, orderBy: { rowId: "asc" } });
  return rows.map(({ type }) => type);
}

const network = { name: "default", uuid: null, active: true, bridge: "br0", mode: "nat" };
const pool = {
  name: "default",
  uuid: null,
  active: true,
  type: "dir",
  path: "/p",
  capacityBytes: 2 ** 41,
  availableBytes: 2 ** 40,
};

describe("recording an inventory", () => {
  it("makes the host ready under the next number, and lets domains, networks and pools come and go", async () => {
    const host = await addHost();
    const [a, b] = [newId(), newId()] as [string, string];
    await record(
      host,
      inventoryOf([domainOf(a), domainOf(b)], { networks: [network], pools: [pool] }),
      at(1),
    );
    const lan = { ...network, name: "lan", bridge: "br1" };
    await record(host, inventoryOf([domainOf(b, { power: "off" })], { networks: [lan] }), at(2));
    expect(await powersOn(host)).toEqual({ [b]: "off" });
    const { db } = database;
    expect(await db.hostNetwork.findMany({ where: { hostId: host }, select: { name: true } })).toEqual([
      { name: "lan" },
    ]);
    expect(await db.hostPool.count({ where: { hostId: host } })).toBe(0);
    const row = await db.host.findUniqueOrThrow({ where: { id: host } });
    expect(row).toMatchObject({ state: "ready", inventorySeq: 2n, inventoryAt: at(2), error: null });
    expect(await eventsOf(host)).toEqual(["host.ready"]);
  });

  it("tells of silence and return once each", async () => {
    const host = await addHost();
    const error = { code: "host_unreachable", message: "m", retry: "temporary" } as const;
    const fail = () => database.db.transaction((tx) => recordUnreachable(tx, host, error));
    await record(host, inventoryOf([]), at(1));
    expect([await fail(), await fail()]).toEqual([true, false]);
    await record(host, inventoryOf([]), at(2));
    expect(await eventsOf(host)).toEqual(["host.ready", "host.unreachable", "host.ready"]);
  });

  it("writes only rows that changed, of a thousand", async () => {
    const host = await addHost();
    const domains = Array.from({ length: 1_000 }, () => domainOf(newId()));
    const inventory = inventoryOf(domains, { networks: [network], pools: [pool] });
    await record(host, inventory, at(1));
    const versions = async () => {
      const rows = await execute<{ uuid: string; xmin: string; xmax: string }>(
        database.url,
        `SELECT domain_uuid::text AS uuid, xmin::text, xmax::text FROM observed_domain WHERE host_id = '${host}'
         UNION ALL SELECT name, xmin::text, xmax::text FROM host_network WHERE host_id = '${host}'
         UNION ALL SELECT type, xmin::text, xmax::text FROM host_pool WHERE host_id = '${host}'`,
      );
      return new Map(rows.map(({ uuid, xmin, xmax }) => [uuid, `${xmin} ${xmax}`]));
    };
    const before = await versions();
    expect(before.size).toBe(1_002);
    await record(host, inventory, at(2));
    expect(await versions()).toEqual(before);
    const [first, ...rest] = domains;
    await record(
      host,
      inventoryOf([{ ...domainOf(first?.uuid ?? ""), memoryMib: 1 }, ...rest], inventory),
      at(3),
    );
    await record(
      host,
      { ...inventory, domains: [domainOf(first?.uuid ?? "", { power: "off" }), ...rest] },
      at(4),
    );
    const after = await versions();
    const changed = [...after]
      .filter(([uuid, version]) => before.get(uuid) !== version)
      .map(([uuid]) => uuid);
    expect(changed).toEqual([first?.uuid]);
    // Though it was not written again, it was seen again.
    const seen = (await domainsOnHost(database.db, host)).map(({ observedAt }) => observedAt.getTime());
    expect(new Set(seen)).toEqual(new Set([at(4).getTime()]));
  });

  it("takes no inventory that was asked for before the one that is recorded", async () => {
    const host = await addHost();
    const uuid = newId();
    await record(host, inventoryOf([domainOf(uuid)]), at(5));
    expect(await record(host, inventoryOf([]), at(4))).toEqual({ recorded: false });
    expect(await powersOn(host)).toEqual({ [uuid]: "running" });
    const row = await database.db.host.findUniqueOrThrow({ where: { id: host } });
    expect(row).toMatchObject({ inventorySeq: 1n, inventoryAt: at(5) });
  });

  it("neither removes nor overwrites a domain that was looked at later", async () => {
    const host = await addHost();
    const [fresh, stopped] = [newId(), newId()] as [string, string];
    await record(host, inventoryOf([domainOf(stopped)]), at(1));
    await database.db.transaction(async (tx) => {
      await recordDomains(tx, host, [domainOf(fresh), domainOf(stopped, { power: "off" })], at(3));
    });
    await record(host, inventoryOf([domainOf(stopped)]), at(2));
    expect(await powersOn(host)).toEqual({ [fresh]: "running", [stopped]: "off" });
    await database.db.transaction((tx) => forgetDomains(tx, host, [fresh], at(2)));
    expect(Object.keys(await powersOn(host))).toHaveLength(2);
    await record(host, inventoryOf([domainOf(stopped)]), at(4));
    expect(await powersOn(host)).toEqual({ [stopped]: "running" });
  });

  it("counts as unmanaged what runs and no VM stands for, also what carries our mark", async () => {
    const host = await addHost();
    const use = { cpuCount: 2, memoryMib: 1000 };
    const inventory = inventoryOf([
      domainOf(newId(), use),
      domainOf(newId(), { ...use, power: "paused", installationId: newId() }),
      domainOf(newId(), { ...use, power: "off" }),
      domainOf(newId(), { ...use, installationId: ours }),
    ]);
    await record(host, inventory, at(1));
    const row = await database.db.host.findUniqueOrThrow({ where: { id: host } });
    expect(row).toMatchObject({ unmanagedCpuCount: 6, unmanagedMemoryMib: 3000 });
  });

  it("numbers inventories of two who record at once one after the other", async () => {
    const host = await addHost();
    await Promise.all(
      Array.from({ length: 8 }, (_, second) => record(host, inventoryOf([]), at(10 + second))),
    );
    const row = await database.db.host.findUniqueOrThrow({ where: { id: host } });
    expect(row.inventoryAt).toEqual(at(17));
    expect(Number(row.inventorySeq)).toBeGreaterThanOrEqual(1);
  });
});
