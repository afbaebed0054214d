import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { pino } from "pino";
import { removeEmbeddedPostgres, startEmbeddedPostgres } from "../../src/db/embedded-postgres.ts";
import { type ServiceProcess, startServiceProcess } from "../fixtures/service-process.ts";
import type { Benchmark, Print } from "./benchmark.ts";
import { percentile, sendLoad } from "./load.ts";
import { describeMachine } from "./machine.ts";

const HOSTS = 1_000;
const VMS_EACH = 100;
/** How often each host is looked at in the measured round; a round takes a tenth longer at most, if all goes well. */
const EVERY_SECONDS = 15;
const NEVER_SECONDS = 86_400;
const GOAL_SECONDS = 20;
const GOAL_MIB = 400;
const GOAL_GROWTH = 2;
const READS = 1_000;
const READS_AT_ONCE = 2;

/** All hosts are asked for everything they have, and all that they tell is compared with the inventory. */
export const reconcile: Benchmark = {
  name: "reconcile",
  title: `a complete inventory of ${HOSTS} simulated hosts with ${HOSTS * VMS_EACH} VMs, in a process of its own`,
  async run(print) {
    const dataDir = await mkdtemp(join(tmpdir(), "drover-bench-"));
    const server = await startEmbeddedPostgres({ dataDir, logger: pino({ level: "error" }) });
    const database = new pg.Client({ connectionString: server.url });
    await database.connect();
    try {
      for (const line of await describeMachine(server.url)) print(line);
      await seed(dataDir, database);
      const quiet = await during(dataDir, NEVER_SECONDS, async (service) => {
        const first = await roundOf(database);
        print(`all hosts connected, asked and recorded after the start: ${first.toFixed(1)} s`);
        return await readsOf(service, database);
      });
      await during(dataDir, EVERY_SECONDS, async (service) => {
        await roundOf(database);
        const [round, busy] = await Promise.all([roundOf(database), readsOf(service, database)]);
        await report(print, service, round, quiet, busy);
      });
    } finally {
      await database.end();
      await server.stop();
      await removeEmbeddedPostgres({ dataDir });
      await rm(dataDir, { recursive: true, force: true });
    }
  },
};

async function during<T>(
  dataDir: string,
  inventorySeconds: number,
  work: (service: ServiceProcess) => Promise<T>,
): Promise<T> {
  const service = await startServiceProcess(dataDir, {
    DROVER_INVENTORY_SECONDS: String(inventorySeconds),
    DROVER_LOG_LEVEL: "warn",
  });
  try {
    return await work(service);
  } finally {
    await service.stop();
  }
}

/** Seconds until each host has an inventory that was asked for from now on. */
async function roundOf(database: pg.Client): Promise<number> {
  const started = new Date();
  for (;;) {
    const { rows } = await database.query<{ left: number }>(
      "SELECT count(*)::int AS left FROM host WHERE inventory_at IS NULL OR inventory_at < $1",
      [started],
    );
    if (rows[0]?.left === 0) return (Date.now() - started.getTime()) / 1000;
    await sleep(100);
  }
}

/** p99 of reading one VM, in milliseconds. */
async function readsOf({ url, token }: ServiceProcess, database: pg.Client): Promise<number> {
  const { rows } = await database.query<{ id: string }>(`SELECT id FROM vm LIMIT ${READS}`);
  const requests = rows.map(({ id }) => ({ method: "GET", path: `/v1/vms/${id}` }));
  const { latenciesMs, refused } = await sendLoad({ url, token, atOnce: READS_AT_ONCE, requests });
  if (refused !== null) throw new Error(refused);
  return percentile(latenciesMs, 0.99);
}

async function report(
  print: Print,
  service: ServiceProcess,
  round: number,
  quiet: number,
  busy: number,
): Promise<void> {
  const mib = await residentMib(service.pid);
  print(
    `a round, every host due each ${EVERY_SECONDS} s: ${round.toFixed(1)} s ` +
      `(goal ${GOAL_SECONDS}, ratio ${(round / GOAL_SECONDS).toFixed(2)})`,
  );
  print(
    `resident memory of the process: ${mib.toFixed(0)} MiB (goal ${GOAL_MIB}, ratio ${(mib / GOAL_MIB).toFixed(2)})`,
  );
  print(
    `GET /v1/vms/{vm}, ${READS} by ${READS_AT_ONCE}: p99 ${quiet.toFixed(1)} ms quiet, ${busy.toFixed(1)} ms meanwhile: ` +
      `ratio ${(busy / quiet).toFixed(2)} (goal ${GOAL_GROWTH})`,
  );
}

async function residentMib(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024;
}

/** Writes hosts and VMs into the inventory, and their domains into the simulated world. */
async function seed(dataDir: string, database: pg.Client): Promise<void> {
  // A first host by the API: with it come the tables of the simulated world.
  await during(dataDir, NEVER_SECONDS, async ({ url, token }) => {
    const answer = await fetch(`${url}/v1/hosts?wait=60`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify({ name: "host-0", uri: uriOf(0) }),
    });
    if (!answer.ok) throw new Error(await answer.text());
  });
  await database.query(
    `INSERT INTO host (id, name, uri, driver, hypervisor, updated_at)
     SELECT gen_random_uuid(), 'host-' || n, replace($2, 'host-0', 'host-' || n), 'sim', 'kvm', now()
     FROM generate_series(1, $1::int - 1) n`,
    [HOSTS, uriOf(0)],
  );
  await database.query(
    `INSERT INTO vm (id, project_id, name, spec, phase, power, host_id, domain_uuid, domain_name, hypervisor,
                     guest_type, pool, observed_generation, updated_at)
     SELECT s.id, p.id, h.name || '-vm-' || s.n,
       '{"runPolicy": "running", "cpu": {"count": 1}, "memoryMib": 1024, "boot": {"firmware": "bios"}, "nics": [],
         "disks": [{"name": "root", "sizeGib": 10}]}'::jsonb,
       'ready', 'running', h.id, s.id, h.name || '-vm-' || s.n, 'kvm', 'hvm', 'default', 1, now()
     FROM host h CROSS JOIN LATERAL (
       SELECT n, gen_random_uuid() AS id, h.id AS host FROM generate_series(1, $1::int) n) s
     JOIN project p ON p.name = 'default'`,
    [VMS_EACH],
  );
  await database.query(
    `INSERT INTO reservation (vm_id, host_id, cpu_count, memory_mib) SELECT id, host_id, 1, 1100 FROM vm`,
  );
  await database.query(
    `INSERT INTO sim.domain (host_id, uuid, name, power, cpu_count, memory_mib, definition, installation_id, vm_id)
     SELECT w.id, v.id, v.domain_name, 'running', 1, 1024,
       '{"guestType": "hvm", "cpuCount": 1, "memoryMib": 1024, "volumes": [], "networks": [], "commandLine": ""}'::jsonb,
       i.id, v.id
     FROM (SELECT h.id AS host, sim.host_id(h.uri) AS id FROM host h) w
     JOIN vm v ON v.host_id = w.host CROSS JOIN installation i`,
  );
  await database.query("VACUUM ANALYZE");
}

function uriOf(n: number): string {
  return `sim+kvm://host-${n}?cpus=256&memoryGib=1024`;
}
