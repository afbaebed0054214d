import { EventEmitter } from "node:events";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Database } from "../../../src/db/client.ts";
import { NotOwner } from "../../../src/hosts/host-observation-store.ts";
import { type HostOwnership, type HostWork, startHostOwnership } from "../../../src/hosts/host-ownership.ts";
import { acquireHosts } from "../../../src/hosts/host-ownership-store.ts";
import type { HostConnection, HostDriver } from "../../../src/hypervisors/hypervisor.ts";
import { type HostId, type InstallationId, newId, type WorkerId } from "../../../src/lib/ids.ts";
import { createSecretBox } from "../../../src/lib/secret-box.ts";
import { OWNERSHIP } from "../../../src/operations/operation-channels.ts";
import { vmObservations } from "../../../src/vms/vm-reconciler.ts";
import { createTestDatabase, type TestDatabase } from "../../fixtures/database.ts";
import { FakeHost } from "../../fixtures/fake-host.ts";
import { silentLog } from "../../fixtures/log.ts";

let database: TestDatabase;
/** Wake-ups between the workers of a test, as the database's notifications are. */
const wakes = new EventEmitter().setMaxListeners(0);
const idle: HostWork = { runningOn: () => 0, release: (_id, handOver) => handOver() };
const started: HostOwnership[] = [];
beforeAll(async () => {
  database = await createTestDatabase();
});
afterEach(async () => {
  await Promise.all(started.splice(0).map((ownership) => ownership.stop()));
  await database.db.host.deleteMany();
  await database.db.worker.deleteMany();
});
afterAll(async () => {
  await database.drop();
});

async function addWorker(): Promise<WorkerId> {
  const id = newId<WorkerId>();
  const later = new Date(Date.now() + 600_000);
  await database.db.worker.create({
    data: { id, hostname: "h", pid: 1, leaseExpiresAt: later, sendsUntil: later },
  });
  return id;
}

async function addHosts(count: number): Promise<HostId[]> {
  const ids = Array.from({ length: count }, () => newId<HostId>());
  await database.db.host.createMany({
    data: ids.map((id) => ({ id, name: id, uri: `sim+kvm://${id}`, driver: "sim", hypervisor: "kvm" })),
  });
  return ids;
}

interface Played {
  readonly fakes: Map<string, FakeHost>;
  readonly driver: HostDriver;
}

function play(connect?: (fake: FakeHost) => Promise<HostConnection>): Played {
  const fakes = new Map<string, FakeHost>();
  const driver: HostDriver = {
    name: "sim",
    schemes: [],
    parseUri: () => ({ error: "not asked" }),
    declares: () => new Set(),
    connect: ({ uri }) => {
      const fake = fakes.get(uri) ?? new FakeHost();
      fakes.set(uri, fake);
      return connect?.(fake) ?? Promise.resolve(fake.connect());
    },
  };
  return { fakes, driver };
}

interface Owner {
  readonly played?: Played;
  readonly db?: Database;
  readonly work?: HostWork;
}

function own(workerId: WorkerId, owner: Owner = {}): HostOwnership {
  const { played = play(), db = database.db, work = idle } = owner;
  const { driver } = played;
  const ownership = startHostOwnership({
    ...{ db, work, logger: silentLog, workerId, installationId: newId<InstallationId>() },
    wakes: {
      listen: (channel, wake) => {
        wakes.on(channel, wake);
        return () => wakes.off(channel, wake);
      },
      notify: (channel) => wakes.emit(channel),
    },
    sink: vmObservations,
    secretBox: createSecretBox(Buffer.alloc(32)),
    driverForUri: () => driver,
    errorBodyOf: () => ({ code: "host_unreachable", message: "silent", retry: "temporary" }),
    inventorySeconds: 3600,
    volumeScanSeconds: 3600,
    onStateChange: () => undefined,
  });
  started.push(ownership);
  return ownership;
}

function eventually(look: () => unknown) {
  return expect.poll(look, { timeout: 30_000, interval: 20 });
}

/** The database, and how often it refused a write because the host was not the writer's. */
function counting(): { readonly db: Database; refusals: number } {
  const { db } = database;
  const counted = { db, refusals: 0 };
  const transaction: Database["transaction"] = async (work, options) => {
    try {
      return await db.transaction(work, options);
    } catch (error) {
      if (error instanceof NotOwner) counted.refusals++;
      throw error;
    }
  };
  counted.db = new Proxy(db, {
    get: (target, name) => (name === "transaction" ? transaction : (Reflect.get(target, name) as unknown)),
  });
  return counted;
}

const idsOf = (ownership: HostOwnership) => [...ownership.owned().keys()].toSorted();

describe("owning hosts", () => {
  it("gives each host one owner, and each worker its share", async () => {
    const hosts = await addHosts(7);
    const workers = [await addWorker(), await addWorker()];
    const [a, b] = workers.map((worker) => own(worker));
    await eventually(() => [...(a?.owned().keys() ?? []), ...(b?.owned().keys() ?? [])].toSorted()).toEqual(
      hosts.toSorted(),
    );
    for (const ownership of [a, b]) expect(ownership?.owned().size).toBeLessThanOrEqual(4);
  });

  it("raises the epoch with each owner, and frees the hosts when it stops", async () => {
    const [host] = await addHosts(1);
    const worker = await addWorker();
    const first = own(worker);
    await eventually(() => [...first.owned()]).toEqual([[host, 1n]]);
    await first.stop();
    expect(await database.db.host.count({ where: { ownerId: null } })).toBe(1);
    await database.db.worker.delete({ where: { id: worker } });
    const second = own(await addWorker());
    await eventually(() => [...second.owned()]).toEqual([[host, 2n]]);
    expect(() => first.connection(host as HostId)).toThrow(/does not own/);
  });

  it("takes what a worker owns that is gone, though nobody freed it", async () => {
    const [host] = await addHosts(1);
    await database.db.host.updateMany({ data: { ownerId: newId(), epoch: 4n } });
    const heir = own(await addWorker());
    await eventually(() => [...heir.owned()]).toEqual([[host, 5n]]);
  });

  it("takes nothing while its own lease is over, or while it drains", async () => {
    await addHosts(1);
    const worker = await addWorker();
    const { db } = database;
    await db.worker.update({ where: { id: worker }, data: { draining: true } });
    await acquireHosts(db, worker);
    await db.worker.update({ where: { id: worker }, data: { draining: false, leaseExpiresAt: new Date(0) } });
    await acquireHosts(db, worker);
    expect(await db.host.count({ where: { ownerId: worker } })).toBe(0);
  });

  it("connects anew when the host's access changes, and lets go of a host that is deleted", async () => {
    const [host] = await addHosts(1);
    const played = play();
    const ownership = own(await addWorker(), { played });
    const fake = () => [...played.fakes.values()].reduce((sum, { open }) => sum + open, 0);
    await eventually(fake).toBe(1);
    const { db } = database;
    await db.host.updateMany({ data: { accelerator: "tcg" } });
    await eventually(() => [...played.fakes.values()][0]?.inventories).toBe(2);
    await eventually(fake).toBe(1);
    expect(idsOf(ownership)).toEqual([host]);
    await db.host.deleteMany();
    await eventually(() => idsOf(ownership)).toEqual([]);
    await eventually(fake).toBe(0);
  });

  it("begins again with a host whose session ended for a moment without a right", async () => {
    const [host] = await addHosts(1);
    const played = play();
    const worker = await addWorker();
    const counted = counting();
    const ownership = own(worker, { played, db: counted.db });
    const isConnected = () => {
      try {
        ownership.connection(host as HostId);
        return true;
      } catch {
        return false;
      }
    };
    await eventually(isConnected).toBe(true);
    const { db } = database;
    const lease = await db.worker.findUniqueOrThrow({ where: { id: worker } });
    await db.worker.update({ where: { id: worker }, data: { leaseExpiresAt: new Date(0) } });
    for (const fake of played.fakes.values()) fake.lose();
    await eventually(() => counted.refusals).toBeGreaterThan(0);
    expect(isConnected()).toBe(false);
    await db.worker.update({ where: { id: worker }, data: { leaseExpiresAt: lease.leaseExpiresAt } });
    await eventually(isConnected).toBe(true);
  });

  it("looks after the others while the connection of one does not close", async () => {
    const hosts = await addHosts(2);
    const played = play((fake) => {
      const connection = fake.connect();
      return Promise.resolve({ ...connection, close: () => new Promise(() => undefined) });
    });
    const ownership = own(await addWorker(), { played });
    await eventually(() => idsOf(ownership)).toEqual(hosts.toSorted());
    const { db } = database;
    await db.host.delete({ where: { id: hosts[0] ?? "" } });
    await eventually(() => idsOf(ownership)).toEqual([hosts[1]]);
    const [third] = await addHosts(1);
    await eventually(() => idsOf(ownership)).toEqual([hosts[1], third].toSorted());
    await ownership.stop();
    expect(await db.host.count({ where: { ownerId: null } })).toBe(2);
  });
});

/** How many hosts each worker owns, as the database has it; the most first. */
async function shares(): Promise<number[]> {
  const rows = await database.db.$queryRaw<{ owned: number }[]>`
    SELECT count(h.id)::int AS owned FROM worker w LEFT JOIN host h ON h.owner_id = w.id GROUP BY w.id`;
  return rows.map(({ owned }) => owned).toSorted((a, b) => b - a);
}

async function changesOfOwner(): Promise<bigint> {
  return (await database.db.host.aggregate({ _sum: { epoch: true } }))._sum.epoch ?? 0n;
}

describe("a worker that joins", () => {
  it("gets its share from those that own more, and then no host moves any more", async () => {
    await addHosts(7);
    const first = own(await addWorker());
    await eventually(() => first.owned().size).toBe(7);
    const second = own(await addWorker());
    await eventually(() => [first.owned().size, second.owned().size]).toEqual([4, 3]);
    await eventually(shares).toEqual([4, 3]);
    // Two more looks of each worker, and wake-ups for nothing.
    for (let n = 0; n < 20; n++) {
      wakes.emit(OWNERSHIP);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    expect(await changesOfOwner()).toBe(10n);
    expect([first.owned().size, second.owned().size]).toEqual([4, 3]);
  });

  it("gets a host where the others could keep theirs and it would own none", async () => {
    await addHosts(4);
    const [a, b] = [own(await addWorker()), own(await addWorker())];
    await eventually(() => [a.owned().size, b.owned().size]).toEqual([2, 2]);
    const third = own(await addWorker());
    await eventually(() => third.owned().size).toBe(1);
    await eventually(shares).toEqual([2, 1, 1]);
  });

  it("gets hosts where nothing runs, before those where something does", async () => {
    const hosts = await addHosts(6);
    const busy = new Set(hosts.slice(0, 3));
    const work: HostWork = { ...idle, runningOn: (id) => (busy.has(id) ? 5 : 0) };
    const first = own(await addWorker(), { work });
    await eventually(() => first.owned().size).toBe(6);
    const second = own(await addWorker());
    await eventually(() => second.owned().size).toBe(3);
    await eventually(() => idsOf(first)).toEqual([...busy].toSorted());
  });

  it("waits for what runs there: until then the host keeps its owner and its connection", async () => {
    await addHosts(2);
    const asked: HostId[] = [];
    const runs = Promise.withResolvers<undefined>();
    const work: HostWork = {
      ...idle,
      async release(id, handOver) {
        asked.push(id);
        await runs.promise;
        await handOver();
      },
    };
    const worker = await addWorker();
    const first = own(worker, { work });
    await eventually(() => first.owned().size).toBe(2);
    const second = own(await addWorker());
    await eventually(() => asked.length).toBe(1);
    for (let n = 0; n < 5; n++) wakes.emit(OWNERSHIP);
    await eventually(() => first.connection(asked[0] as HostId)).toBeDefined();
    expect(second.owned().size).toBe(0);
    expect(await database.db.host.count({ where: { ownerId: worker } })).toBe(2);
    runs.resolve(undefined);
    await eventually(() => idsOf(second)).toEqual(asked);
    expect(asked).toHaveLength(1);
  });

  it("loses what was on its way to it when it goes again: the owner keeps the host as it is", async () => {
    await addHosts(2);
    const asked: HostId[] = [];
    const runs = Promise.withResolvers<undefined>();
    const ended: HostId[] = [];
    const work: HostWork = {
      ...idle,
      async release(id, handOver) {
        asked.push(id);
        await runs.promise;
        await handOver();
        ended.push(id);
      },
    };
    const first = own(await addWorker(), { work });
    await eventually(() => first.owned().size).toBe(2);
    const joiner = await addWorker();
    wakes.emit(OWNERSHIP);
    await eventually(() => asked.length).toBe(1);
    await database.db.worker.delete({ where: { id: joiner } });
    runs.resolve(undefined);
    await eventually(() => ended.length).toBe(1);
    expect(first.owned().size).toBe(2);
    expect(await changesOfOwner()).toBe(2n);
  });
});

it("keeps no host free for a worker that has fallen silent, though its lease is not over", async () => {
  await addHosts(4);
  const silent = await addWorker();
  await database.db.worker.update({ where: { id: silent }, data: { sendsUntil: new Date(0) } });
  const living = own(await addWorker());
  await eventually(() => living.owned().size).toBe(4);
});

describe("a worker that stops", () => {
  it("gives each host up as soon as nothing runs there, whatever another one waits for", async () => {
    const [slow, ...others] = await addHosts(3);
    const runs = Promise.withResolvers<undefined>();
    const work: HostWork = {
      ...idle,
      async release(id, handOver) {
        if (id === slow) await runs.promise;
        await handOver();
      },
    };
    const worker = await addWorker();
    const first = own(worker, { work });
    await eventually(() => first.owned().size).toBe(3);
    await database.db.worker.update({ where: { id: worker }, data: { draining: true } });
    const second = own(await addWorker());
    const stopping = first.stop();
    await eventually(() => idsOf(second)).toEqual(others.toSorted());
    expect(idsOf(first)).toEqual([slow]);
    runs.resolve(undefined);
    await stopping;
    await eventually(() => second.owned().size).toBe(3);
  });
});
