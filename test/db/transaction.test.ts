import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createDatabase, type Sql } from "../../src/db/client.ts";
import { foreignKeyViolation, isDatabaseUnavailable, uniqueViolation } from "../../src/db/database-errors.ts";
import { requireSupported } from "../../src/db/server-version.ts";
import { createTestDatabase, execute, type TestDatabase } from "../fixtures/database.ts";
import { silentLog } from "../fixtures/log.ts";

let test: TestDatabase;
beforeAll(async () => {
  test = await createTestDatabase();
});
afterAll(async () => {
  await test.drop();
});

const project = (name: string = randomUUID()) => ({ id: randomUUID(), name });

function insert(sql: Sql, { id, name }: ReturnType<typeof project>): Promise<number> {
  return sql.$executeRaw`INSERT INTO project (id, name) VALUES (${id}::uuid, ${name})`;
}

/** What the promise rejects with; fails when it resolves. */
async function errorOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => expect.fail("it succeeded"),
    (error: unknown) => error,
  );
}

describe("a transaction", () => {
  it("commits what it wrote, and nothing of it when it throws", async () => {
    const kept = project();
    expect(await test.db.transaction((tx) => insert(tx, kept))).toBe(1);
    expect(await test.db.project.findUnique({ where: { id: kept.id } })).toMatchObject(kept);
    const lost = project();
    const failure = new Error("after the write");
    const work = test.db.transaction(async (tx) => {
      await insert(tx, lost);
      throw failure;
    });
    expect(await errorOf(work)).toBe(failure);
    expect(await test.db.project.findUnique({ where: { id: lost.id } })).toBeNull();
  });

  it("runs again when a concurrent one wins, and loses no update", async () => {
    const host = randomUUID();
    await test.db.host.create({
      data: { id: host, name: host, uri: "sim+kvm://a", driver: "sim", hypervisor: "kvm" },
    });
    let runs = 0;
    const increment = () =>
      test.db.transaction(
        async (tx) => {
          runs += 1;
          const [row] = await tx.$queryRaw<
            { generation: number }[]
          >`SELECT generation FROM host WHERE id = ${host}::uuid`;
          await tx.$executeRaw`UPDATE host SET generation = ${(row?.generation ?? 0) + 1} WHERE id = ${host}::uuid`;
        },
        { isolationLevel: "Serializable", maxAttempts: 50 },
      );
    await Promise.all(Array.from({ length: 8 }, increment));
    const { generation } = await test.db.host.findUniqueOrThrow({ where: { id: host } });
    expect(generation).toBe(9);
    expect(runs).toBeGreaterThan(8);
  });

  it("runs again after a deadlock", async () => {
    const a = project();
    const b = project();
    await test.db.project.createMany({ data: [a, b] });
    let waiting = 0;
    let release: () => void = () => undefined;
    const both = new Promise<void>((resolve) => {
      release = resolve;
    });
    const lockInOrder = (first: string, second: string) =>
      test.db.transaction(async (tx) => {
        await tx.$queryRaw`SELECT id FROM project WHERE id = ${first}::uuid FOR UPDATE`;
        if (++waiting === 2) release();
        await both;
        await tx.$queryRaw`SELECT id FROM project WHERE id = ${second}::uuid FOR UPDATE`;
      });
    await Promise.all([lockInOrder(a.id, b.id), lockInOrder(b.id, a.id)]);
    expect(waiting).toBe(3);
  });

  it("gives up after its attempts, as unavailable", async () => {
    let runs = 0;
    const always = test.db.transaction(
      (tx) => {
        runs += 1;
        return tx.$executeRaw`DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '40001'; END $$`;
      },
      { maxAttempts: 3 },
    );
    expect(await errorOf(always)).toMatchObject({ code: "unavailable", retry: "temporary" });
    expect(runs).toBe(3);
  });

  it("ends at its time limit, rolled back, as unavailable", async () => {
    const lost = project();
    const slow = test.db.transaction(
      async (tx) => {
        await insert(tx, lost);
        await tx.$queryRaw`SELECT 1 FROM pg_sleep(2)`;
        await insert(tx, project());
      },
      { timeoutSeconds: 1 },
    );
    expect(await errorOf(slow)).toMatchObject({ code: "unavailable" });
    expect(await test.db.project.findUnique({ where: { id: lost.id } })).toBeNull();
  });
});

it("gives every connection limits, so that a lost statement cannot keep it", async () => {
  const db = createDatabase({ url: test.url, maxConnections: 1, logger: silentLog });
  const rows =
    await db.$queryRaw`SELECT current_setting('statement_timeout') AS statement, current_setting('lock_timeout') AS lock`;
  expect(rows).toEqual([{ statement: "30s", lock: "15s" }]);
  await db.close();
});

it("refuses servers older than Postgres 15", () => {
  expect(() => {
    requireSupported(140_012, "14.12");
  }).toThrow(/Postgres 14\.12; Drover needs 15 or newer/);
  requireSupported(150_000, "15.0");
});

describe("violations", () => {
  it("are recognised by the constraint's name, from models and from SQL", async () => {
    const taken = await test.db.project.create({ data: project() });
    const fromModel = await errorOf(test.db.project.create({ data: project(taken.name) }));
    const fromSql = await errorOf(
      test.db.$executeRaw`INSERT INTO project (id, name) VALUES (${randomUUID()}::uuid, ${taken.name})`,
    );
    expect([fromModel, fromSql].map(uniqueViolation)).toEqual(["project_name_key", "project_name_key"]);
    expect([fromModel, fromSql].map(foreignKeyViolation)).toEqual([null, null]);
  });

  it("name the foreign key, both when a row is missing and when it is in use", async () => {
    const token = (projectId: string) => ({
      id: randomUUID(),
      name: randomUUID(),
      projectId,
      secretHash: Buffer.from(randomUUID()),
    });
    const missing = await errorOf(test.db.apiToken.create({ data: token(randomUUID()) }));
    const used = await test.db.project.create({ data: project() });
    await test.db.apiToken.create({ data: token(used.id) });
    const inUse = await errorOf(test.db.project.delete({ where: { id: used.id } }));
    const expected = ["api_token_project_id_fkey", "api_token_project_id_fkey"];
    expect([missing, inUse].map(foreignKeyViolation)).toEqual(expected);
    expect([missing, inUse].map(uniqueViolation)).toEqual([null, null]);
    expect([missing, inUse].map(isDatabaseUnavailable)).toEqual([false, false]);
  });
});

describe("an unavailable database", () => {
  it.each([
    ["nobody listens", "postgresql://x@127.0.0.1:1/x"],
    ["there is no socket", "postgresql://x@localhost/x?host=/nonexistent"],
  ])("is recognised when %s", async (_, url) => {
    const db = createDatabase({ url, maxConnections: 1, logger: silentLog });
    expect(isDatabaseUnavailable(await errorOf(db.project.findMany()))).toBe(true);
    expect(isDatabaseUnavailable(await errorOf(db.transaction((tx) => insert(tx, project()))))).toBe(true);
    await db.close();
  });

  it("is recognised when the server ends the connection, and the next query works", async () => {
    const db = createDatabase({ url: test.url, maxConnections: 1, logger: silentLog });
    const broken = await errorOf(db.$queryRaw`SELECT pg_terminate_backend(pg_backend_pid())::text`);
    expect(isDatabaseUnavailable(broken)).toBe(true);
    expect(await db.project.count()).toBeGreaterThanOrEqual(0);
    await db.close();
  });

  it("is recognised when we break the connections ourselves, and the next query works", async () => {
    const db = createDatabase({ url: test.url, maxConnections: 2, logger: silentLog });
    const sleeping = () =>
      execute<{ count: string }>(
        test.url,
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT 1 FROM pg_sleep(600%' AND state = 'active'",
      );
    const broken = [
      errorOf(db.$queryRaw`SELECT 1 FROM pg_sleep(600)`),
      errorOf(db.transaction((tx) => tx.$queryRaw`SELECT 1 FROM pg_sleep(600)`)),
    ];
    await expect.poll(sleeping, { timeout: 20_000 }).toEqual([{ count: "2" }]);
    db.breakConnections();
    for (const error of await Promise.all(broken)) expect(isDatabaseUnavailable(error)).toBe(true);
    expect(await db.project.count()).toBeGreaterThanOrEqual(0);
    await db.close();
  });

  const limits: readonly (readonly [string, (db: Sql) => Promise<unknown>])[] = [
    [
      "a lock is waited for too long",
      async (db) => {
        await db.$executeRaw`SET LOCAL lock_timeout = '20ms'`;
        await db.$executeRaw`SELECT pg_advisory_xact_lock(4711)`;
      },
    ],
    [
      "a statement takes too long",
      async (db) => {
        await db.$executeRaw`SET LOCAL statement_timeout = '20ms'`;
        await db.$executeRaw`SELECT pg_sleep(30)`;
      },
    ],
    [
      "the process stood still in a transaction",
      async (db) => {
        await db.$executeRaw`SET LOCAL idle_in_transaction_session_timeout = '20ms'`;
        await new Promise((resolve) => setTimeout(resolve, 500));
        await db.$queryRaw`SELECT 1`;
      },
    ],
  ];
  it.each(limits)("is also one that ends what waits: %s", async (_what, work) => {
    const { db } = test;
    const locked = Promise.withResolvers<undefined>();
    const over = Promise.withResolvers<undefined>();
    const holder = db.transaction(async (tx) => {
      await tx.$executeRaw`SELECT pg_advisory_xact_lock(4711)`;
      locked.resolve(undefined);
      await over.promise;
    });
    await locked.promise;
    expect(isDatabaseUnavailable(await errorOf(db.transaction(work)))).toBe(true);
    over.resolve(undefined);
    await holder;
    expect(await db.$queryRaw`SELECT 1 AS one`).toEqual([{ one: 1 }]);
  });

  it("is not what a host's refused connection is taken for", () => {
    class HostError extends Error {
      override readonly name = "HypervisorError";
    }
    const cause = Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED" });
    expect(isDatabaseUnavailable(new HostError("host unreachable", { cause }))).toBe(false);
    expect(isDatabaseUnavailable(undefined)).toBe(false);
  });
});
