import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import type { Benchmark } from "./benchmark.ts";
import { addHosts, createAll } from "./creates.ts";
import { percentile, sendLoad } from "./load.ts";
import { describeMachine } from "./machine.ts";
import { type BenchService, startBenchService } from "./service.ts";

const OPERATIONS = 100_000;
const STEPS_EACH = 5;
const CREATES = 600;
const READS = 500;
const READS_AT_ONCE = 2;
const GOAL = 1.2;

/** What is over must not slow down what is under way: the same work before and after a long history is there. */
export const history: Benchmark = {
  name: "history",
  title: `creates and reads with ${OPERATIONS} operations in history, against the same without`,
  async run(print) {
    const service = await startBenchService();
    const database = new pg.Client({ connectionString: service.databaseUrl });
    await database.connect();
    try {
      for (const line of await describeMachine(service.databaseUrl)) print(line);
      await addHosts(service);
      await createAll(service, database, "warm", CREATES);
      await settle(database);
      const before = await measure(service, database, "before");
      await seedHistory(database);
      const after = await measure(service, database, "after");
      for (const [what, ms] of Object.entries(before)) {
        const now = after[what] ?? NaN;
        print(
          `${what.padEnd(30)} ${ms.toFixed(2)} ms before, ${now.toFixed(2)} ms after: ` +
            `ratio ${(now / ms).toFixed(2)} (goal ${GOAL})`,
        );
      }
    } finally {
      await database.end();
      await service.stop();
    }
  },
};

/** Milliseconds by what was done. */
async function measure(
  service: BenchService,
  database: pg.Client,
  prefix: string,
): Promise<Record<string, number>> {
  const creates = await createAll(service, database, prefix, CREATES);
  return {
    "a create, 64 at once": (creates.seconds * 1000) / CREATES,
    "GET /v1/vms?pageSize=100, p50": await readOf(service, "/v1/vms?pageSize=100"),
    "GET /v1/vms/{vm}, p50": await readOf(service, `/v1/vms/${prefix}-0`),
    "GET /v1/operations, p50": await readOf(service, "/v1/operations?pageSize=100"),
    "GET /v1/events, p50": await readOf(service, "/v1/events?pageSize=100"),
  };
}

async function readOf({ url, token }: BenchService, path: string): Promise<number> {
  const requests = Array.from({ length: READS }, () => ({ method: "GET", path }));
  const { latenciesMs, refused } = await sendLoad({ url, token, atOnce: READS_AT_ONCE, requests });
  if (refused !== null) throw new Error(refused);
  return percentile(latenciesMs, 0.5);
}

/** Copies of an operation that has ended, with its steps and subjects, as if they had come before. */
async function seedHistory(database: pg.Client): Promise<void> {
  await database.query(
    `CREATE TEMPORARY TABLE past AS
     SELECT gen_random_uuid() AS id, gen_random_uuid() AS vm_id, now() - (n || ' seconds')::interval AS at
     FROM generate_series(1, $1::int) n`,
    [OPERATIONS],
  );
  await database.query(
    `INSERT INTO operation (id, kind, state, project_id, input, targets, turn, actor, deadline, steps_total,
                            attempt, created_at, started_at, ended_at)
     SELECT p.id, 'vm.start', 'succeeded', (SELECT id FROM project LIMIT 1), jsonb_build_object('vmId', p.vm_id),
       jsonb_build_array(jsonb_build_object('kind', 'vm', 'id', p.vm_id, 'name', 'past')), 0, 'bench', p.at, $1::int,
       1, p.at, p.at, p.at
     FROM past p`,
    [STEPS_EACH],
  );
  await database.query(
    `INSERT INTO operation_subject (operation_id, kind, subject_id, mode, seq, unfinished)
     SELECT o.id, 'vm', p.vm_id, 'exclusive', o.seq, false FROM past p JOIN operation o ON o.id = p.id`,
  );
  await database.query(
    `INSERT INTO operation_step (operation_id, position, name, state, attempts, started_at, ended_at)
     SELECT p.id, n, 'step-' || n, 'succeeded', 1, p.at, p.at FROM past p, generate_series(0, $1::int - 1) n`,
    [STEPS_EACH],
  );
  await database.query(
    `INSERT INTO event (id, type, project_id, subject_kind, subject_id, subject_name, operation_id, data)
     SELECT gen_random_uuid(), 'operation.succeeded', NULL, 'operation', p.id, 'vm.start', p.id, '{}' FROM past p`,
  );
  // The service numbers the events that it finds.
  const unnumbered = "SELECT count(*)::int AS count FROM event WHERE seq IS NULL";
  while ((await database.query<{ count: number }>(unnumbered)).rows[0]?.count !== 0) await sleep(100);
  await settle(database);
}

/** What a bulk of new rows leaves for the server to do is not what their age costs. */
async function settle(database: pg.Client): Promise<void> {
  await database.query("VACUUM ANALYZE");
  await database.query("CHECKPOINT");
}
