import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createDatabase, type Database } from "../../../src/db/client.ts";
import { Prisma } from "../../../src/db/generated/client.ts";
import { declaredBy } from "../../../src/hypervisors/capabilities.ts";
import { createDrivers } from "../../../src/hypervisors/index.ts";
import { DroverError } from "../../../src/lib/errors.ts";
import { type HostId, newId, type ProjectId, type VmId } from "../../../src/lib/ids.ts";
import { createSecretBox } from "../../../src/lib/secret-box.ts";
import { anyKind } from "../../../src/operations/operation-kind.ts";
import { createKindRegistry, type KindRegistry } from "../../../src/operations/operation-kinds.ts";
import { vmActions } from "../../../src/vms/actions/index.ts";
import { start } from "../../../src/vms/actions/start.ts";
import { stop } from "../../../src/vms/actions/stop.ts";
import { memoryWithOverhead } from "../../../src/vms/placement.ts";
import { createPlacementSnapshots, type PlacementSnapshots } from "../../../src/vms/placement-snapshot.ts";
import { memoryWithOverheadSql } from "../../../src/vms/placement-store.ts";
import { patchVm } from "../../../src/vms/vm-change.ts";
import { vmCreateKind } from "../../../src/vms/vm-create.ts";
import { vmDeleteKind } from "../../../src/vms/vm-delete.ts";
import { CreateVmBody } from "../../../src/vms/vm-schemas.ts";
import { createVm } from "../../../src/vms/vm-service.ts";
import { createTestDatabase, type TestDatabase } from "../../fixtures/database.ts";
import { silentLog } from "../../fixtures/log.ts";

const MEMORY = 512;
const COST = memoryWithOverhead(MEMORY);
const PER_HOST = 6;

let database: TestDatabase;
let db: Database;
const projectId = newId<ProjectId>();
const request = { projectId, actor: "token:test", requestId: "r" };
const secretBox = createSecretBox(Buffer.alloc(32));
const unread = () => Promise.reject(new Error("no images here"));
const noImages = { open: unread, openRaw: unread };
// As in three API processes, on a machine that is fast: what one ranks stays out of date until it has to read anew.
const KEPT_MS = 600_000;
const processes = Array.from({ length: 3 }, () => createPlacementSnapshots(KEPT_MS));
const declared = declaredBy(createDrivers({ databaseUrl: "postgresql://nobody@localhost/none" }));
const imageCacheBytes = 0;
const kinds: KindRegistry = createKindRegistry([
  anyKind(
    vmCreateKind({ images: noImages, secretBox, cache: () => ({ kinds, limitBytes: imageCacheBytes }) }),
  ),
  anyKind(vmDeleteKind),
  ...vmActions.map(({ kind }) => kind),
]);

beforeAll(async () => {
  database = await createTestDatabase();
  // As many connections as a busy service has, so that transactions really meet.
  db = createDatabase({ url: database.url, maxConnections: 24, logger: silentLog });
  await db.project.create({ data: { id: projectId, name: "default" } });
});
afterAll(async () => {
  await db.close();
  await database.drop();
});

async function addHost(name: string, memoryMib: number, cpuCount = 64): Promise<HostId> {
  const id = newId<HostId>();
  await db.host.create({
    data: {
      id,
      name,
      uri: `sim+kvm://${name}`,
      driver: "sim",
      hypervisor: "kvm",
      state: "ready",
      cpuCount,
      memoryMib,
      reserveMemoryMib: 0,
      cpuOvercommit: 1,
      facts: {
        guestTypes: [{ guestType: "hvm", capabilities: ["start", "volumes", "firmwareBios"] }],
      },
      pools: {
        create: {
          id: newId(),
          name: "default",
          active: true,
          type: "dir",
          capacityBytes: 2 ** 40,
          availableBytes: 2 ** 40,
          inventorySeq: 1,
          observedAt: new Date(),
        },
      },
    },
  });
  return id;
}

let named = 0;
function create(
  overrides: object = {},
  process: PlacementSnapshots | undefined = processes[named % processes.length],
): Promise<{ readonly id: VmId }> {
  const body = CreateVmBody.parse({
    name: `vm-${++named}`,
    spec: {
      runPolicy: "stopped",
      cpu: { count: 1 },
      memoryMib: MEMORY,
      disks: [{ name: "root", sizeGib: 1 }],
      ...overrides,
    },
  });
  return db.transaction((tx) =>
    createVm(tx, { kinds, secretBox, installationId: newId(), imageCacheBytes }, request, body, {
      declared,
      snapshots: process,
    }),
  );
}

async function usedOf(hostId: HostId): Promise<number> {
  const sum = await db.reservation.aggregate({ where: { hostId }, _sum: { memoryMib: true } });
  return sum._sum.memoryMib ?? 0;
}

describe("placement while many create at once", () => {
  it("fills each host to its last MiB, not one beyond, and refuses only what no host can take", async () => {
    const hosts: HostId[] = [];
    for (const name of ["a", "b", "c", "d"]) hosts.push(await addHost(name, PER_HOST * COST));
    const room = PER_HOST * hosts.length;
    const results = await Promise.allSettled(Array.from({ length: room + 16 }, () => create()));
    const refused = results.flatMap((result) =>
      result.status === "rejected" ? [result.reason as unknown] : [],
    );
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(room);
    for (const error of refused) {
      expect(error).toBeInstanceOf(DroverError);
      expect(error).toMatchObject({ code: "no_placement" });
    }
    for (const host of hosts) expect(await usedOf(host)).toBe(PER_HOST * COST);
    // Nothing is left of those that were refused.
    expect(await db.vm.count()).toBe(room);
    expect(await db.operation.count()).toBe(room);
    expect(await db.volume.count()).toBe(room);
    const placed = results.flatMap((result) => (result.status === "fulfilled" ? [result.value.id] : []));
    const [gone] = placed;
    // The room of one that goes is there for the next.
    if (gone === undefined) throw new Error("nothing was placed");
    await db.volume.deleteMany({ where: { vmId: gone } });
    await db.vm.delete({ where: { id: gone } });
    await create();
    await expect(create()).rejects.toMatchObject({ code: "no_placement" });
    await db.host.updateMany({ data: { schedulable: false } });
  });

  it("keeps to the limit while VMs are created, grown and shrunk at once", async () => {
    const host = await addHost("mixed", 20 * COST);
    const first = await Promise.all(Array.from({ length: 10 }, () => create()));
    const grow = (id: VmId, memoryMib: number) =>
      db.transaction((tx) =>
        patchVm(tx, kinds, request, { start, stop }, id, { spec: { memoryMib, runPolicy: "running" } }, null),
      );
    const results = await Promise.allSettled([
      ...first.map(({ id }) => grow(id, 2 * MEMORY)),
      ...Array.from({ length: 10 }, () => create()),
      ...first.map(({ id }) => grow(id, MEMORY / 2)),
    ]);
    for (const result of results)
      if (result.status === "rejected") expect(result.reason).toMatchObject({ code: "no_placement" });
    expect(await usedOf(host)).toBeLessThanOrEqual(20 * COST);
    await db.host.updateMany({ data: { schedulable: false } });
  });

  it("looks again at a free host that another process has filled since it was ranked", async () => {
    const host = await addHost("filled", 2 * COST);
    const [mine, other] = [createPlacementSnapshots(KEPT_MS), createPlacementSnapshots(KEPT_MS)];
    await create({}, mine);
    await create({}, other);
    await expect(create({}, mine)).rejects.toMatchObject({ code: "no_placement" });
    expect(await usedOf(host)).toBe(2 * COST);
    await db.host.updateMany({ data: { schedulable: false } });
  });

  it("sees what was freed between the ranking and the lock", async () => {
    const host = await addHost("free", COST);
    const { id } = await create();
    expect(await usedOf(host)).toBe(COST);
    const freed = Promise.withResolvers<undefined>();
    const freeing = db.transaction(async (tx) => {
      await tx.$executeRaw`DELETE FROM volume WHERE vm_id = ${id}::uuid`;
      await tx.$executeRaw`DELETE FROM vm WHERE id = ${id}::uuid`;
      freed.resolve(undefined);
    });
    await freed.promise;
    await freeing;
    await create();
    expect(await usedOf(host)).toBe(COST);
    await db.host.updateMany({ data: { schedulable: false } });
  });
});

describe("a refusal", () => {
  it("tells of the host that was asked for, however many others there are", async () => {
    await addHost("z-asked", COST - 1);
    const failure: unknown = await create({ placement: { host: "z-asked" } }).catch(
      (error: unknown) => error,
    );
    expect(failure).toMatchObject({ code: "no_placement", details: { hosts: { 0: { host: "z-asked" } } } });
    expect(String(failure)).toContain(`z-asked: ${COST - 1} of ${COST - 1} MiB are left`);
  });
});

it("the server counts what a VM costs as placement does", async () => {
  for (const memoryMib of [1, 63, 64, 65, 128, 1000, 1_048_576]) {
    const cost = memoryWithOverheadSql(Prisma.sql`${memoryMib}::int`);
    const [row] = await db.$queryRaw<{ cost: number }[]>`SELECT ${cost} AS cost`;
    expect(row?.cost).toBe(memoryWithOverhead(memoryMib));
  }
});
