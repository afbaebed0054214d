import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createDatabase } from "../../src/db/client.ts";
import { uniqueViolation } from "../../src/db/database-errors.ts";
import { type Sql, sentTogether } from "../../src/db/sql.ts";
import type { Tx } from "../../src/db/transaction.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/database.ts";
import { silentLog } from "../fixtures/log.ts";

let test: TestDatabase;
beforeAll(async () => {
  test = await createTestDatabase();
});
afterAll(async () => {
  await test.drop();
});

const insertProject = (tx: Sql, name: string) =>
  tx.$executeRaw`INSERT INTO project (id, name) VALUES (${randomUUID()}::uuid, ${name})`;

const countOf = (name: string) => test.db.project.count({ where: { name } });

describe("raw statements", () => {
  it("give the types that the models give, and take what they take", async () => {
    const at = new Date("2026-01-02T03:04:05.678Z");
    const [row] = await test.db.$queryRaw<unknown[]>`
      SELECT ${2n ** 60n}::bigint AS big, ${7}::int AS small, ${at}::timestamptz AS at, ${null}::text AS nothing,
             ${["a", 'b"c']}::text[] AS list, ${JSON.stringify({ a: [1] })}::jsonb AS json, ${true}::boolean AS yes,
             ${Buffer.from([0, 255])}::bytea AS bytes, ${1.5}::float8 AS part`;
    const list = ["a", 'b"c'];
    const rest = { json: { a: [1] }, yes: true, bytes: Buffer.from([0, 255]), part: 1.5 };
    expect(row).toEqual({ big: 2n ** 60n, small: 7, at, nothing: null, list, ...rest });
  });

  it("say how many rows they touched", async () => {
    const name = randomUUID();
    expect(await insertProject(test.db, name)).toBe(1);
    expect(await test.db.$executeRaw`DELETE FROM project WHERE name = ${name}`).toBe(1);
    expect(await test.db.$executeRaw`DELETE FROM project WHERE name = ${name}`).toBe(0);
  });

  it("of a transaction that has ended are refused, and write nothing", async () => {
    const name = randomUUID();
    const kept: Tx[] = [];
    await test.db.transaction(async (tx) => {
      kept.push(tx);
      await insertProject(tx, `${name}-in-time`);
    });
    for (const tx of kept) await expect(insertProject(tx, name)).rejects.toThrow();
    expect([await countOf(`${name}-in-time`), await countOf(name)]).toEqual([1, 0]);
  });

  it("of many transactions at once stay in their own", async () => {
    const names = Array.from({ length: 40 }, () => randomUUID());
    await Promise.allSettled(
      names.map((name, index) =>
        test.db.transaction(async (tx) => {
          await sentTogether(insertProject(tx, name), insertProject(tx, `${name}-2`));
          if (index % 2 === 0) throw new Error("taken back");
        }),
      ),
    );
    const counts = await Promise.all(
      names.map(async (name) => (await countOf(name)) + (await countOf(`${name}-2`))),
    );
    expect(counts).toEqual(names.map((_, index) => (index % 2 === 0 ? 0 : 2)));
  });
});

it("of statements that were sent together, the first failure is told, and nothing is written", async () => {
  const name = randomUUID();
  const late = async (work: Promise<unknown>): Promise<unknown> => {
    try {
      return await work;
    } catch (error) {
      await new Promise((resolve) => setImmediate(resolve));
      throw error;
    }
  };
  const twice = test.db.transaction((tx) =>
    sentTogether(insertProject(tx, name), late(insertProject(tx, name)), insertProject(tx, `${name}-2`)),
  );
  const error = await twice.then(
    () => expect.fail("it succeeded"),
    (reason: unknown) => reason,
  );
  expect(uniqueViolation(error)).toBe("project_name_key");
  expect([await countOf(name), await countOf(`${name}-2`)]).toEqual([0, 0]);
});

it("a transaction in which a statement failed is not taken for committed, though its work went on", async () => {
  const name = randomUUID();
  const work = test.db.transaction(async (tx) => {
    await insertProject(tx, name);
    await tx.$queryRaw`SELECT 1 / 0`.catch(() => undefined);
  });
  await expect(work).rejects.toThrow(/rolled back/);
  expect(await countOf(name)).toBe(0);
});

it("who waits for a connection of a busy pool gets one in the end, however long connecting may take", async () => {
  const db = createDatabase({ url: test.url, maxConnections: 1, logger: silentLog });
  const [first, ...waiting] = [
    db.$queryRaw`SELECT 1 FROM pg_sleep(5.5)`, // longer than a connection may take to be made
    db.$queryRaw<{ n: number }[]>`SELECT 2 AS n`,
    db.transaction((tx) => tx.$queryRaw<{ n: number }[]>`SELECT 3 AS n`),
  ];
  await first;
  expect(await Promise.all(waiting)).toEqual([[{ n: 2 }], [{ n: 3 }]]);
  await db.close();
});
