import { afterAll, beforeAll, expect, it } from "vitest";
import { newId, type VmId } from "../../../src/lib/ids.ts";
import { changedVm } from "../../../src/vms/vm-reader.ts";
import { createTestDatabase, type TestDatabase } from "../../fixtures/database.ts";

let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(async () => {
  await database.drop();
});

// As for a second delete that found the first one under way, and whose VM is gone by the time it is shown.
it("a VM that went in the middle of a change is not found, and no mistake of ours", async () => {
  const viewed = database.db.transaction((tx) => changedVm(tx, newId<VmId>()));
  await expect(viewed).rejects.toMatchObject({ code: "not_found" });
});
