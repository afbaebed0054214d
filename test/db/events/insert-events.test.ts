import { afterAll, beforeAll, expect, it } from "vitest";
import { Prisma } from "../../../src/db/generated/client.ts";
import { insertEvents, vmEventRows } from "../../../src/events/event-store.ts";
import { newId, type OperationId } from "../../../src/lib/ids.ts";
import { createTestDatabase, type TestDatabase } from "../../fixtures/database.ts";

let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(async () => {
  await database.drop();
});

it("events of one statement stand in the order of their groups, whatever the order in which the groups are found", async () => {
  const { db } = database;
  const operationId = newId<OperationId>();
  const vms = Array.from({ length: 3 }, (_, n) => ({ id: newId(), name: `vm-${n}`, project_id: null }));
  const source = Prisma.sql`jsonb_to_recordset(${JSON.stringify(vms)}::jsonb) AS c(id uuid, name text, project_id uuid)`;
  const data = Prisma.sql`jsonb_build_object('name', c.name)`;
  const types = ["vm.third", "vm.first", "vm.second"];
  const groups = types.map((type) => vmEventRows(type, source, operationId, data));
  expect(await db.$executeRaw`${insertEvents(groups)}`).toBe(9);
  const rows = await db.event.findMany({ orderBy: { rowId: "asc" } });
  expect(rows.map(({ type }) => type)).toEqual(types.flatMap((type) => [type, type, type]));
  expect(rows[0]).toMatchObject({
    subjectKind: "vm",
    subjectId: vms[0]?.id,
    subjectName: "vm-0",
    operationId,
    data: { name: "vm-0" },
  });
});
