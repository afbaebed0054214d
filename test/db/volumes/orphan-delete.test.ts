import { afterAll, beforeAll, expect, it } from "vitest";
import { type HostId, newId, type OperationId, type ProjectId, type VolumeId } from "../../../src/lib/ids.ts";
import { volumeDeleteKind } from "../../../src/volumes/volume-kinds.ts";
import { createTestDatabase, type TestDatabase } from "../../fixtures/database.ts";

let database: TestDatabase;
const projectId = newId<ProjectId>();
const hostId = newId<HostId>();

beforeAll(async () => {
  database = await createTestDatabase();
  await database.db.project.create({ data: { id: projectId, name: "default" } });
  const host = { id: hostId, name: "n1", uri: "sim+kvm://n1", driver: "sim", hypervisor: "kvm" };
  await database.db.host.create({ data: host });
});

afterAll(async () => {
  await database.drop();
});

async function admitted(orphanSince: Date | null, orphan: boolean) {
  const id = newId<VolumeId>();
  const place = {
    projectId,
    hostId,
    pool: "default",
    name: id,
    role: "none",
    format: "raw",
    capacityBytes: 1n,
  };
  await database.db.volume.create({ data: { id, ...place, state: "ready", orphanSince } });
  const operation = {
    ...{ id: newId<OperationId>(), kind: "volume.delete", projectId },
    input: { volumeId: id, orphan },
  };
  return await database.db.transaction(async (tx) => await volumeDeleteKind.admit?.(tx, operation));
}

it("leaves an orphan alone that somebody took into care before the collector's turn", async () => {
  expect(await admitted(new Date(), true)).toEqual({ kind: "run" });
  expect(await admitted(null, true)).toEqual({ kind: "done" });
  expect(await admitted(null, false)).toEqual({ kind: "run" });
});
