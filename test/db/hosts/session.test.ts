import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { HostSession, type HostSessionDeps } from "../../../src/hosts/host-session.ts";
import { HypervisorError } from "../../../src/hypervisors/hypervisor.ts";
import { type HostId, type InstallationId, newId, type ProjectId, type VmId } from "../../../src/lib/ids.ts";
import { vmObservations } from "../../../src/vms/vm-reconciler.ts";
import { createTestDatabase, type TestDatabase } from "../../fixtures/database.ts";
import { domainOf, FakeHost } from "../../fixtures/fake-host.ts";
import { silentLog } from "../../fixtures/log.ts";

let database: TestDatabase;
const projectId = newId<ProjectId>();
const sessions: HostSession[] = [];
beforeAll(async () => {
  database = await createTestDatabase();
  await database.db.project.create({ data: { id: projectId, name: "default" } });
});
afterEach(async () => {
  await Promise.all(sessions.splice(0).map((session) => session.stop()));
});
afterAll(async () => {
  await database.drop();
});

interface Scene {
  readonly hostId: HostId;
  readonly vmId: VmId;
  readonly fake: FakeHost;
  readonly session: HostSession;
}

/** A host with one running VM, owned by a worker at epoch 1, and its session. */
async function scene(overrides: Partial<HostSessionDeps> = {}): Promise<Scene> {
  const { db } = database;
  const fake = new FakeHost();
  const [hostId, vmId, workerId] = [newId<HostId>(), newId<VmId>(), newId()];
  const later = new Date(Date.now() + 600_000);
  await db.worker.create({
    data: { id: workerId, hostname: "h", pid: 1, leaseExpiresAt: later, sendsUntil: later },
  });
  await db.host.create({
    data: {
      ...{ id: hostId, name: hostId, uri: "sim+kvm://x", driver: "sim", hypervisor: "kvm" },
      ...{ ownerId: workerId, epoch: 1n },
    },
  });
  await db.vm.create({
    data: {
      ...{ id: vmId, projectId, name: vmId, spec: {}, phase: "ready", hostId, domainUuid: vmId },
      ...{ power: "unknown" },
    },
  });
  fake.domains = [domainOf(vmId)];
  const session = new HostSession(hostId, 1n, {
    db,
    logger: silentLog,
    installationId: newId<InstallationId>(),
    sink: vmObservations,
    connect: () => Promise.resolve(fake.connect()),
    errorBodyOf: () => ({ code: "host_unreachable", message: "silent", retry: "temporary" }),
    inventorySeconds: 3600,
    volumeScanSeconds: 3600,
    onStateChange: () => undefined,
    ...overrides,
  });
  sessions.push(session);
  session.start();
  return { hostId, vmId, fake, session };
}

function eventually(look: () => Promise<unknown>) {
  return expect.poll(look, { timeout: 30_000, interval: 20 });
}

async function stateOf(hostId: HostId): Promise<string> {
  return (await database.db.host.findUniqueOrThrow({ where: { id: hostId } })).state;
}

async function powerOf(vmId: VmId): Promise<string> {
  return (await database.db.vm.findUniqueOrThrow({ where: { id: vmId } })).power;
}

function isConnected(session: HostSession): boolean {
  try {
    session.connection();
    return true;
  } catch {
    return false;
  }
}

describe("the session of a host", () => {
  it("connects, records facts and inventory, and only then gives the connection out", async () => {
    const held = Promise.withResolvers<undefined>();
    const { hostId, vmId, fake, session } = await scene();
    fake.beforeInventory = () => held.promise;
    expect(isConnected(session)).toBe(false);
    held.resolve(undefined);
    await eventually(async () => isConnected(session)).toBe(true);
    expect([await stateOf(hostId), await powerOf(vmId)]).toEqual(["ready", "running"]);
    const row = await database.db.host.findUniqueOrThrow({ where: { id: hostId } });
    expect(row).toMatchObject({ cpuCount: 4, memoryMib: 4096, inventorySeq: 1n });
  });

  it("looks at the domain that an event names, and at nothing else", async () => {
    const { vmId, fake, session } = await scene();
    await eventually(async () => isConnected(session)).toBe(true);
    fake.domains = [domainOf(vmId, { power: "crashed" })];
    fake.tell(vmId);
    await eventually(() => powerOf(vmId)).toBe("crashed");
    expect(fake).toMatchObject({ inventories: 1, looks: [vmId] });
  });

  it("asks a host that is suspected, and keeps the connection when it answers", async () => {
    const { hostId, fake, session } = await scene();
    await eventually(async () => isConnected(session)).toBe(true);
    session.suspect();
    await eventually(async () => fake.inventories).toBe(2);
    expect([isConnected(session), await stateOf(hostId), fake.open]).toEqual([true, "ready", 1]);
  });

  it("takes a suspected host that does not answer for silent, and gives no connection out until it does", async () => {
    const { hostId, vmId, fake, session } = await scene();
    await eventually(async () => isConnected(session)).toBe(true);
    let asked = 0;
    fake.beforeInventory = () => {
      asked++;
      return Promise.reject(new HypervisorError("timeout", "no answer in 30 seconds"));
    };
    session.suspect();
    await eventually(() => stateOf(hostId)).toBe("unreachable");
    expect(await powerOf(vmId)).toBe("unknown");
    // Connected again, but still without an answer.
    await eventually(async () => asked).toBeGreaterThan(2);
    expect(isConnected(session)).toBe(false);
    fake.beforeInventory = () => Promise.resolve();
    await eventually(async () => isConnected(session)).toBe(true);
    expect([await stateOf(hostId), await powerOf(vmId)]).toEqual(["ready", "running"]);
  });

  it("takes one inventory instead of very many looks", async () => {
    const { fake, session } = await scene();
    await eventually(async () => isConnected(session)).toBe(true);
    fake.domains = Array.from({ length: 200 }, () => domainOf(newId()));
    for (const { uuid } of fake.domains) fake.tell(uuid);
    await eventually(async () => fake.inventories).toBe(2);
    expect(fake.looks.length).toBeLessThan(50);
  });

  it("says at once that the host is silent, connects again, and follows the new connection alone", async () => {
    const { hostId, vmId, fake, session } = await scene();
    await eventually(async () => isConnected(session)).toBe(true);
    for (let round = 1; round <= 3; round++) {
      fake.lose();
      expect(isConnected(session)).toBe(false);
      await eventually(() => powerOf(vmId)).toBe("unknown");
      await eventually(async () => isConnected(session)).toBe(true);
      expect([await stateOf(hostId), await powerOf(vmId)]).toEqual(["ready", "running"]);
      expect(fake.open).toBe(1);
    }
    // An event is looked at once: nothing is left of the connections before.
    fake.tell(vmId);
    await eventually(async () => fake.looks.length).toBe(1);
    expect(fake.inventories).toBe(4);
  });

  it("takes no domain for gone that is not seen for a moment, whoever asks for it meanwhile", async () => {
    const { vmId, fake, session } = await scene({ absenceMs: 3_600_000, inventorySeconds: 0.05 });
    await eventually(() => powerOf(vmId)).toBe("running");
    fake.domains = [];
    fake.tell(vmId);
    session.suspect();
    const before = fake.inventories;
    await eventually(async () => fake.inventories).toBeGreaterThan(before + 5);
    expect(await powerOf(vmId)).toBe("running");
    fake.domains = [domainOf(vmId, { power: "paused" })];
    await eventually(() => powerOf(vmId)).toBe("paused");
    const events = await database.db.event.findMany({ where: { subjectId: vmId } });
    expect(events.map(({ data }) => (data as { to?: string }).to)).toEqual(["running", "paused"]);
  });

  it.each([
    [
      "an event tells of it",
      (fake: FakeHost, vmId: VmId) => {
        fake.tell(vmId);
      },
    ],
    [
      "an inventory misses it",
      (_fake: FakeHost, _vmId: VmId, session: HostSession) => {
        session.suspect();
      },
    ],
  ])("says that a domain is gone once it was not seen for long enough, where %s", async (_what, notice) => {
    const { vmId, fake, session } = await scene({ absenceMs: 200 });
    await eventually(() => powerOf(vmId)).toBe("running");
    fake.domains = [];
    notice(fake, vmId, session);
    await eventually(() => powerOf(vmId)).toBe("off");
    const { conditions } = await database.db.vm.findUniqueOrThrow({ where: { id: vmId } });
    expect(conditions).toMatchObject([{ type: "DomainMissing" }]);
  });

  it("gives out no connection that was lost while its first inventory was under way", async () => {
    const given: boolean[] = [];
    const { fake, session } = await scene({
      onStateChange: () => {
        if (isConnected(session)) given.push(fake.live.has(session.connection()));
      },
    });
    await eventually(async () => isConnected(session)).toBe(true);
    const held = Promise.withResolvers<undefined>();
    const begun = Promise.withResolvers<undefined>();
    fake.beforeInventory = () => {
      begun.resolve(undefined);
      return held.promise;
    };
    fake.lose();
    await begun.promise;
    fake.lose();
    fake.beforeInventory = () => Promise.resolve();
    held.resolve(undefined);
    await eventually(async () => isConnected(session)).toBe(true);
    expect(fake.open).toBe(1);
    expect(given).toEqual([true, true]);
  });

  it("bears a call that fails now and then, and gives the host up when it goes on", async () => {
    let failures = 2;
    const { hostId, fake, session } = await scene({ inventorySeconds: 0.05 });
    await eventually(async () => isConnected(session)).toBe(true);
    fake.beforeInventory = () =>
      failures-- > 0 ? Promise.reject(new HypervisorError("failed", "hiccup")) : Promise.resolve();
    const before = fake.inventories;
    await eventually(async () => fake.inventories > before).toBe(true);
    expect(isConnected(session)).toBe(true);
    expect(await stateOf(hostId)).toBe("ready");
    failures = 1_000;
    await eventually(() => stateOf(hostId)).toBe("unreachable");
    expect(isConnected(session)).toBe(false);
  });

  it("does not call the host silent while it is the database that is away", async () => {
    let isAway = false;
    const { db } = database;
    const fickle = new Proxy(db, {
      get: (target, name) =>
        isAway && name === "transaction"
          ? () => Promise.reject(new Error("Connection terminated"))
          : (Reflect.get(target, name) as unknown),
    });
    const { hostId, vmId, fake, session } = await scene({ db: fickle, inventorySeconds: 0.05 });
    await eventually(async () => isConnected(session)).toBe(true);
    isAway = true;
    const asked = fake.inventories;
    await eventually(async () => fake.inventories > asked + 1).toBe(true);
    expect(isConnected(session)).toBe(true);
    fake.domains = [domainOf(vmId, { power: "off" })];
    isAway = false;
    await eventually(() => powerOf(vmId)).toBe("off");
    expect(await stateOf(hostId)).toBe("ready");
    expect(fake.open).toBe(1);
    const events = await db.event.findMany({ where: { subjectId: hostId } });
    expect(events.map(({ type }) => type)).toEqual(["host.ready"]);
  });

  it("writes nothing more once the host has another owner, and says that it is over", async () => {
    const { hostId, vmId, fake, session } = await scene({ inventorySeconds: 0.05 });
    await eventually(async () => isConnected(session)).toBe(true);
    await database.db.host.update({ where: { id: hostId }, data: { epoch: 2n } });
    await eventually(async () => session.isOver).toBe(true);
    fake.domains = [domainOf(vmId, { power: "off" })];
    fake.lose();
    expect([await stateOf(hostId), await powerOf(vmId)]).toEqual(["ready", "running"]);
    expect(fake.open).toBe(0);
  });

  it("ends while it waits: for a connection, and for the next attempt", async () => {
    const connecting = await scene({
      connect: (signal) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener("abort", () => {
            reject(new HypervisorError("aborted", "given up"));
          });
        }),
    });
    const refused = await scene({
      connect: () => Promise.reject(new HypervisorError("unreachable", "refused")),
    });
    await eventually(() => stateOf(refused.hostId)).toBe("unreachable");
    for (const { session } of [connecting, refused]) await session.stop();
    expect(connecting.session.isOver && refused.session.isOver).toBe(true);
    expect(await stateOf(connecting.hostId)).toBe("connecting");
  });
});
