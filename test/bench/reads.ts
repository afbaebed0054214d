import type { AddressInfo } from "node:net";
import Fastify from "fastify";
import pg from "pg";
import type { Benchmark, Print } from "./benchmark.ts";
import { percentile, sendLoad } from "./load.ts";
import { describeMachine } from "./machine.ts";
import { type BenchService, startBenchService } from "./service.ts";
import { recordStatements, type StatementRecorder } from "./statements.ts";

const SIZES = [1_000, 100_000] as const;
const REQUESTS = 200;
const AT_ONCE = 4;
// As many VMs on each as a page holds, with the smaller number too: the answers are then of one size.
const HOSTS = 10;

/** What is asked, each with the number of VMs in its name: the last page is found by the token of the page before. */
const QUERIES: readonly { readonly name: string; readonly path: string }[] = [
  { name: "first page", path: "/v1/vms?pageSize=100" },
  { name: "one VM", path: "/v1/vms/vm-000500" },
  { name: "filter host", path: "/v1/vms?pageSize=100&host=seed-7" },
  { name: "filter power", path: "/v1/vms?pageSize=100&power=off" },
  { name: "label selector", path: "/v1/vms?pageSize=100&labelSelector=rack%3Dr7" },
];

/** Lists and single reads, with 1,000 and with 100,000 VMs, against a route that does nothing but the same SQL. */
export const reads: Benchmark = {
  name: "reads",
  title: "GET /v1/vms and /v1/vms/{vm} against a bare Fastify route with the same SQL and the same bytes",
  async run(print) {
    const recorder = recordStatements();
    const service = await startBenchService({}, { DROVER_ROLES: "api" });
    const database = new pg.Client({ connectionString: service.databaseUrl });
    await database.connect();
    try {
      for (const line of await describeMachine(service.databaseUrl)) print(line);
      const before = new Map<string, number>();
      for (const size of SIZES) {
        await seed(database, size);
        print(`${size} VMs, ${REQUESTS} requests each, ${AT_ONCE} at once`);
        for (const { name, path } of [...QUERIES, await lastPage(service, size)])
          await measure(print, service, recorder, { name, path }, before);
      }
    } finally {
      await database.end();
      await service.stop();
    }
  },
};

async function measure(
  print: Print,
  service: BenchService,
  recorder: StatementRecorder,
  { name, path }: { readonly name: string; readonly path: string },
  before: Map<string, number>,
): Promise<void> {
  const bare = await startBareRoute(service, recorder, path);
  try {
    const run = (url: string) => load(url, service.token, path);
    // Both warm, then one after the other under the same load.
    await run(service.url);
    await run(bare.url);
    const [ours, theirs] = [await run(service.url), await run(bare.url)];
    const smaller = before.get(name);
    before.set(name, ours.p50);
    const growth =
      smaller === undefined ? "" : `, p50 ${(ours.p50 / smaller).toFixed(2)} of that with fewer VMs`;
    const at = (p: { p50: number; p99: number }) => `p50 ${p.p50.toFixed(1)} ms, p99 ${p.p99.toFixed(1)} ms`;
    print(
      `${name.padEnd(15)} ${at(ours)}; bare ${at(theirs)}; ` +
        `ratio p50 ${(ours.p50 / theirs.p50).toFixed(2)}, p99 ${(ours.p99 / theirs.p99).toFixed(2)}${growth}`,
    );
  } finally {
    await bare.close();
  }
}

async function load(url: string, token: string, path: string) {
  const requests = Array.from({ length: REQUESTS }, () => ({ method: "GET", path }));
  const { latenciesMs, refused } = await sendLoad({ url, token, atOnce: AT_ONCE, requests });
  if (refused !== null) throw new Error(refused);
  return { p50: percentile(latenciesMs, 0.5), p99: percentile(latenciesMs, 0.99) };
}

/** A route that sends the statements that the service sent for this path, and the bytes that it answered. */
async function startBareRoute(service: BenchService, recorder: StatementRecorder, path: string) {
  let body = "";
  const statements = await recorder.during(async () => {
    body = JSON.stringify(await service.request("GET", path));
  });
  if (statements.length === 0) throw new Error("the service sent no statement");
  const pool = new pg.Pool({ connectionString: service.databaseUrl, max: 24 });
  const app = Fastify();
  app.get("/*", async (_request, reply) => {
    for (const statement of statements) await pool.query(statement);
    return reply.type("application/json").send(body);
  });
  await app.listen({ host: "127.0.0.1", port: 0 });
  const { port } = app.server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    close: async () => {
      await app.close();
      await pool.end();
    },
  };
}

interface Page {
  readonly nextPageToken?: string;
}

/** Walks to where a hundred VMs are left: a page's token can only be had from the page before. */
async function lastPage(service: BenchService, size: number) {
  let token = "";
  for (let seen = 0; seen < size - 100; ) {
    const pageSize = Math.min(500, size - 100 - seen);
    const from = token === "" ? "" : `&pageToken=${encodeURIComponent(token)}`;
    const page = await service.request<Page>("GET", `/v1/vms?pageSize=${pageSize}${from}`);
    token = page.nextPageToken ?? "";
    seen += pageSize;
  }
  return { name: "last page", path: `/v1/vms?pageSize=100&pageToken=${encodeURIComponent(token)}` };
}

/** Adds VMs up to this number, in bulk. */
async function seed(database: pg.Client, size: number): Promise<void> {
  await database.query(
    `INSERT INTO host (id, name, uri, driver, hypervisor, state, updated_at)
     SELECT gen_random_uuid(), 'seed-' || n, 'sim+kvm://seed-' || n, 'sim', 'kvm', 'ready', now()
     FROM generate_series(0, $1::int - 1) n ON CONFLICT DO NOTHING`,
    [HOSTS],
  );
  await database.query(
    `INSERT INTO vm (id, project_id, name, labels, spec, phase, power, host_id, domain_uuid, domain_name, hypervisor,
                     guest_type, pool, observed_at, observed_generation, created_at, updated_at)
     SELECT s.id, p.id, 'vm-' || lpad(s.n::text, 6, '0'),
       jsonb_build_object('rack', 'r' || s.n % 10, 'role', CASE WHEN s.n % 2 = 0 THEN 'web' ELSE 'db' END),
       '{"runPolicy": "running", "cpu": {"count": 2}, "memoryMib": 1024, "boot": {"firmware": "bios"}, "nics": [],
         "disks": [{"name": "root", "sizeGib": 10}]}'::jsonb,
       'ready', CASE WHEN s.n % 10 = 0 THEN 'off' ELSE 'running' END, h.id, s.id, 'vm-' || s.n, 'kvm', 'hvm', 'default',
       now(), 1, now() + s.n * interval '1 ms', now()
     FROM (SELECT n, gen_random_uuid() AS id FROM generate_series(0, $1::int - 1) n) s
     JOIN project p ON p.name = 'default' JOIN host h ON h.name = 'seed-' || s.n % $2::int
     ON CONFLICT (project_id, name) DO NOTHING`,
    [size, HOSTS],
  );
  await database.query("VACUUM ANALYZE");
}
