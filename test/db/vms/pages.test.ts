import { afterAll, beforeAll, expect, it } from "vitest";
import { newId, type ProjectId } from "../../../src/lib/ids.ts";
import { listVms } from "../../../src/vms/vm-store.ts";
import { createTestDatabase, type TestDatabase } from "../../fixtures/database.ts";

const SAME_INSTANT = new Date("2026-01-01T00:00:00Z");
const projectId = newId<ProjectId>();

let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase();
  await database.db.project.create({ data: { id: projectId, name: "default" } });
});
afterAll(async () => {
  await database.drop();
});

it.each(["asc", "desc"] as const)(
  "pages of VMs that were created in the same instant show each once, %s",
  async (direction) => {
    const { db } = database;
    await db.vm.deleteMany();
    const names = Array.from({ length: 7 }, (_, index) => `vm-${index}`);
    for (const name of names)
      await db.vm.create({
        data: { id: newId(), projectId, name, spec: {}, phase: "ready", createdAt: SAME_INSTANT },
      });
    const seen: string[] = [];
    const order = { field: "createdAt", direction } as const;
    let after: { readonly value: string; readonly id: string } | null = null;
    // One more than there are pages: one that shows a row again must not go on for ever.
    for (let page = 0; page < 5; page++) {
      const found = await listVms(db, projectId, {}, order, { after, limit: 2 });
      seen.push(...found.map(({ name }) => name));
      const last = found.at(-1);
      if (last === undefined) break;
      after = { value: SAME_INSTANT.toISOString(), id: last.id };
    }
    expect(seen.toSorted()).toEqual(names);
  },
);
