import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import type { Benchmark, Print } from "./benchmark.ts";
import { cpuTime } from "./cpu-time.ts";
import { percentile, sendLoad } from "./load.ts";
import { describeMachine } from "./machine.ts";
import { type BenchService, startBenchService } from "./service.ts";
import { countStatements } from "./statements.ts";

const HOSTS = 10;
const WARM_UP = 200;
const CREATES = 1_000;
const AT_ONCE = 64;
const GOAL = 150;
const MOST_STATEMENTS = 60;
const ROUND_TRIPS = 5_000;

/** From the request to the running guest, recorded: nothing is left out, and the database writes through. */
export const creates: Benchmark = {
  name: "creates",
  title: "creates per second on simulated hosts without latency, API and one worker in one process",
  async run(print, { statements: showStatements }) {
    const statements = countStatements();
    const service = await startBenchService();
    const database = new pg.Client({ connectionString: service.databaseUrl });
    await database.connect();
    try {
      for (const line of await describeMachine(service.databaseUrl)) print(line);
      await addHosts(service);
      await createAll(service, database, "warm", WARM_UP);
      // As the service's own database is at most ten seconds after such growth.
      await database.query("ANALYZE");
      statements.reset();
      const before = cpuTime(service.dataDir);
      const measured = await createAll(service, database, "vm", CREATES);
      const after = cpuTime(service.dataDir);
      const sent = statements.total();
      report(print, measured);
      const each = (from: number, to: number) => `${((to - from) / CREATES).toFixed(2)} ms`;
      print(
        `CPU time a create: service ${each(before.service, after.service)}, ` +
          `Postgres ${each(before.postgres, after.postgres)}`,
      );
      const trip = await roundTrip(service);
      const spent = (after.service - before.service + after.postgres - before.postgres) / CREATES;
      print(
        `CPU time of a bare round trip (SELECT 1, prepared): ${trip.toFixed(3)} ms; ` +
          `a create costs as much as ${(spent / trip).toFixed(0)} of them`,
      );
      print(`statements a create: ${(sent / CREATES).toFixed(1)}`);
      if (showStatements) for (const line of statements.report(CREATES, MOST_STATEMENTS)) print(line);
    } finally {
      await database.end();
      await service.stop();
    }
  },
};

export interface Measured {
  readonly seconds: number;
  readonly latenciesMs: readonly number[];
}

function report(print: Print, { seconds, latenciesMs }: Measured): void {
  const rate = CREATES / seconds;
  print(`${CREATES} creates on ${HOSTS} hosts, ${AT_ONCE} requests at once: ${seconds.toFixed(2)} s`);
  print(`rate: ${rate.toFixed(0)} creates/s (goal ${GOAL}, ratio ${(rate / GOAL).toFixed(2)})`);
  const [p50, p99] = [percentile(latenciesMs, 0.5), percentile(latenciesMs, 0.99)];
  print(`answer to POST /v1/vms: p50 ${p50.toFixed(0)} ms, p99 ${p99.toFixed(0)} ms`);
}

/** CPU time of the smallest possible statement, on both sides: the yardstick, for it varies with the machine's load. */
async function roundTrip({ databaseUrl, dataDir }: BenchService): Promise<number> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    const before = cpuTime(dataDir);
    for (let n = 0; n < ROUND_TRIPS; n++) await client.query({ name: "bench", text: "SELECT 1" });
    const after = cpuTime(dataDir);
    return (after.service - before.service + after.postgres - before.postgres) / ROUND_TRIPS;
  } finally {
    await client.end();
  }
}

/** Registers the simulated hosts, each with room for everything. */
export async function addHosts(service: BenchService): Promise<void> {
  for (let n = 1; n <= HOSTS; n++) {
    const uri = `sim+kvm://bench-${n}?cpus=4096&memoryGib=4096`;
    await service.request("POST", "/v1/hosts?wait=30", { name: `bench-${n}`, uri });
  }
}

/** Measures until the last operation has ended, and checks that each VM runs. */
export async function createAll(
  service: BenchService,
  database: pg.Client,
  prefix: string,
  count: number,
): Promise<Measured> {
  const requests = Array.from({ length: count }, (_, n) => ({
    method: "POST",
    path: "/v1/vms",
    body: {
      name: `${prefix}-${n}`,
      spec: { cpu: { count: 1 }, memoryMib: 256, disks: [{ name: "root", sizeGib: 1 }] },
    },
  }));
  const started = performance.now();
  const load = await sendLoad({ url: service.url, token: service.token, atOnce: AT_ONCE, requests });
  if (load.refused !== null) throw new Error(load.refused);
  while ((await countOf(database, "operation WHERE ended_at IS NULL")) > 0) await sleep(20);
  const seconds = (performance.now() - started) / 1000;
  const ready = `vm WHERE phase = 'ready' AND power = 'running' AND name LIKE '${prefix}-%'`;
  const running = await countOf(database, ready);
  if (running !== count) throw new Error(`${running} of ${count} VMs run`);
  return { seconds, latenciesMs: load.latenciesMs };
}

async function countOf(database: pg.Client, what: string): Promise<number> {
  const { rows } = await database.query<{ count: number }>(`SELECT count(*)::int AS count FROM ${what}`);
  return rows[0]?.count ?? 0;
}
