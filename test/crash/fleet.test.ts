import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type SimControl, simControl } from "../../src/hypervisors/sim/sim-control-store.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/database.ts";
import { type ServiceProcess, startServiceProcess } from "../fixtures/service-process.ts";
import { makeScratchDirectory } from "../fixtures/temporary-directory.ts";
import { createRandom, type Random } from "../fuzz/random.ts";
import { complaintsOf } from "./complaints.ts";
import { readSimWorld } from "./sim-rig.ts";
import { trespasses, watchTrespasses } from "./trespasses.ts";

const SEED = Number(process.env["FLEET_SEED"] ?? 20_261_125);
const APIS = 2;
const WORKERS = 3;
const HOSTS = 7;
const CLIENTS = 8;
const VMS_EACH = 3;
/** Long enough that a worker that is killed or frozen has calls before it, under way and behind it. */
const LATENCY_MS = 400;
/** How long it rains blows. */
const STRIKE_MS = 25_000;
const LEASE_SECONDS = 3;

let database: TestDatabase;
let dataDir: string;
let control: SimControl;
let apis: ServiceProcess[] = [];
let workers: ServiceProcess[] = [];
let started = 0;

/** Each has a name of its own, by which the database knows who writes. */
async function start(roles: "api" | "worker"): Promise<ServiceProcess> {
  const url = new URL(database.url);
  const name = `fleet-${++started}`;
  url.searchParams.set("application_name", name);
  const service = await startServiceProcess(dataDir, {
    DATABASE_URL: url.toString(),
    DROVER_ROLES: roles,
    DROVER_LEASE_SECONDS: String(LEASE_SECONDS),
    DROVER_INVENTORY_SECONDS: "1",
    DROVER_LOG_LEVEL: "warn",
    // Hundreds of modules, the same each time: this halves the start.
    NODE_COMPILE_CACHE: join(dataDir, "compile-cache"),
  });
  await database.db.$executeRaw`INSERT INTO watch.process VALUES (${service.pid}::int, ${name})`;
  return service;
}

beforeAll(async () => {
  database = await createTestDatabase();
  dataDir = await makeScratchDirectory();
  control = await simControl(database.url);
  await watchTrespasses(database.db);
  // The first one makes what they share: the secret key and the installation.
  const first = await start("api");
  const others = Array.from({ length: APIS - 1 }, () => start("api"));
  workers = await Promise.all(Array.from({ length: WORKERS }, () => start("worker")));
  apis = [first, ...(await Promise.all(others))];
  const registered = await Promise.all(
    Array.from({ length: HOSTS }, (_, n) =>
      send(n, "POST", "/v1/hosts?wait=30", {
        name: `host-${n}`,
        uri: `sim+kvm://host-${n}?latencyMs=${LATENCY_MS}`,
      }),
    ),
  );
  expect(new Set(registered)).toEqual(new Set([202]));
});

afterAll(async () => {
  for (const worker of workers) worker.thaw();
  await Promise.all([...apis, ...workers].map((service) => service.kill()));
  await control.close();
  await database.drop();
  await rm(dataDir, { recursive: true, force: true });
});

const EXPECTED: ReadonlySet<number> = new Set([202, 404, 409, 503]);
/** Answers that nobody should ever get. */
const unexpected: string[] = [];

/** The answer's status; null: the API died over it. */
async function send(
  api: number,
  method: string,
  path: string,
  body?: object,
  key?: string,
): Promise<number | null> {
  const service = apis[api % APIS];
  try {
    const answer = await fetch(`${service?.url ?? ""}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${service?.token ?? ""}`,
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...(key === undefined ? {} : { "Idempotency-Key": key }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    if (!EXPECTED.has(answer.status)) unexpected.push(`${method} ${path}: ${answer.status} ${text}`);
    return answer.status;
  } catch {
    return null;
  }
}

const spec = { cpu: { count: 1 }, memoryMib: 128, disks: [{ name: "root", sizeGib: 1 }] };

/** One client: now this VM of its own, now that one, over both APIs. What got no answer it sends again to the other. */
async function client(number: number, isOver: () => boolean): Promise<number[]> {
  const random = createRandom(SEED, number);
  const statuses: number[] = [];
  for (let turn = 0; !isOver(); turn++) {
    const name = `vm-${number}-${random.below(VMS_EACH)}`;
    const [method, path, body] = random.pick([
      ["POST", "/v1/vms", { name, spec }],
      ["POST", "/v1/vms", { name, spec }],
      ["POST", `/v1/vms/${name}/start`],
      ["POST", `/v1/vms/${name}/stop`, {}],
      ["POST", `/v1/vms/${name}/stop`, { mode: "force" }],
      ["DELETE", `/v1/vms/${name}`],
    ] as const);
    const key = method === "POST" ? `${number}-${turn}` : undefined;
    const status =
      (await send(turn, method, path, body, key)) ?? (await send(turn + 1, method, path, body, key));
    if (status !== null) statuses.push(status);
    await sleep(random.below(150));
  }
  return statuses;
}

/** Workers that somebody sees to at the moment. */
const struck = new Set<number>();

/** Takes one that nobody else sees to: there are fewer strikers than workers. */
async function strikeWorker(random: Random, blow: (index: number) => Promise<void>): Promise<void> {
  const index = random.pick([0, 1, 2].filter((one) => !struck.has(one)));
  struck.add(index);
  await blow(index);
  struck.delete(index);
}

/** Waits, but not for ever, until a statement returns a row. */
async function seen(query: () => Promise<readonly unknown[]>, mostMs: number): Promise<void> {
  for (const limit = performance.now() + mostMs; performance.now() < limit; ) {
    if ((await query()).length > 0) return;
    await sleep(20);
  }
}

/** A worker stands still in the middle of operations, mostly until others have taken them over. */
async function freezeOne(random: Random): Promise<void> {
  await strikeWorker(random, async (index) => {
    const worker = workers[index] as ServiceProcess;
    const { db } = database;
    const isBusy = () => db.$queryRaw<unknown[]>`
      SELECT w.id FROM worker w JOIN operation o ON o.worker_id = w.id
      WHERE w.pid = ${worker.pid}::int GROUP BY w.id HAVING count(*) >= 3`;
    const isGivenUp = () => db.$queryRaw<unknown[]>`
      SELECT 1 AS one WHERE NOT EXISTS (SELECT FROM worker w WHERE w.pid = ${worker.pid}::int)`;
    await seen(isBusy, 3_000);
    worker.freeze();
    if (random.chance(0.25)) await sleep(random.below(LEASE_SECONDS * 1_000));
    else await seen(isGivenUp, 30_000);
    await sleep(random.below(700));
    worker.thaw();
  });
}

/** A worker dies, and another one joins after a while. */
async function killOne(random: Random): Promise<void> {
  await strikeWorker(random, async (index) => {
    await workers[index]?.kill();
    await sleep(random.below(2_000));
    workers[index] = await start("worker");
  });
}

async function killApi(random: Random): Promise<void> {
  const index = random.below(APIS);
  await apis[index]?.kill();
  apis[index] = await start("api");
}

/** Blow after blow, in turn, at moments that the seed fixes, until the time is up; each one at least once. */
async function strike(
  number: number,
  blows: readonly ((random: Random) => Promise<void>)[],
  isOver: () => boolean,
): Promise<void> {
  const random = createRandom(SEED, number);
  for (let n = 0; n < blows.length || !isOver(); n++) {
    await blows[n % blows.length]?.(random);
    await sleep(random.below(2_000));
  }
}

/** For the one who has to find out why. */
async function errorsOfServices(): Promise<string[]> {
  const log = await readFile(join(dataDir, "service.log"), "utf8");
  return log.split("\n").filter((line) => line.includes('"level":50') || line.includes('"level":60'));
}

/** What is wrong beyond what every crash test asks: domains on two hosts, and workers that own more than others. */
async function fleetComplaints(): Promise<string[]> {
  const { db } = database;
  const twice = await db.$queryRaw<
    { uuid: string }[]
  >`SELECT uuid FROM sim.domain_now GROUP BY uuid HAVING count(*) > 1`;
  const owned = await db.$queryRaw<{ count: number }[]>`
    SELECT count(h.id)::int AS count FROM worker w LEFT JOIN host h ON h.owner_id = w.id GROUP BY w.id`;
  const counts = owned.map(({ count }) => count);
  return [
    ...twice.map(({ uuid }) => `domain ${uuid} is on two hosts`),
    ...(Math.max(...counts) - Math.min(...counts) > 1 ? [`workers own ${counts.join(", ")} hosts`] : []),
  ];
}

it("loses and doubles nothing while workers and APIs die, freeze and join", {
  timeout: 300_000,
}, async () => {
  let isOver = false;
  const clients = Array.from({ length: CLIENTS }, (_, number) => client(number, () => isOver));
  const until = performance.now() + STRIKE_MS;
  const isTimeUp = (): boolean => performance.now() > until;
  await Promise.all([
    strike(CLIENTS, [killOne, killApi], isTimeUp),
    strike(CLIENTS + 1, [freezeOne, freezeOne], isTimeUp),
  ]);
  isOver = true;

  const statuses = (await Promise.all(clients)).flat();
  expect([...unexpected, ...(unexpected.length > 0 ? await errorsOfServices() : [])]).toEqual([]);
  // A run in which all were refused would show nothing.
  expect(statuses.filter((status) => status === 202).length).toBeGreaterThan(50);

  const { db } = database;
  let complaints: readonly string[] = ["not looked yet"];
  for (const limit = performance.now() + 120_000; performance.now() < limit; ) {
    complaints = [
      ...(await complaintsOf(db, await readSimWorld(db), { dataDir, workers: WORKERS })),
      ...(await fleetComplaints()),
    ];
    if (complaints.length === 0) break;
    await sleep(250);
  }
  expect(complaints).toEqual([]);
  expect(await trespasses(db)).toEqual([]);
  const states = await db.operation.groupBy({ by: ["state"], _count: true });
  expect(states.map(({ state }) => state)).not.toContain("attention");
});
