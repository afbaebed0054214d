import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { vmActions } from "../../src/vms/actions/index.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/database.ts";
import { makeScratchDirectory } from "../fixtures/temporary-directory.ts";
import { type Change, callerOf, type EndedOperation } from "./caller.ts";
import type { Rig } from "./campaign.ts";
import { complaintsOf } from "./complaints.ts";
import { type CrashService, startCrashService, TOKEN } from "./crash-service.ts";
import { openSimRig } from "./sim-rig.ts";

const VMS = 4;
const CLIENTS = 12;
const REQUESTS_EACH = 60;
const WORKERS = 2;

let database: TestDatabase;
let dataDir: string;
let rig: Rig;
let apis: readonly CrashService[];
let workers: readonly CrashService[];

beforeAll(async () => {
  database = await createTestDatabase();
  dataDir = await makeScratchDirectory();
  const start = (roles: string): Promise<CrashService> =>
    startCrashService(dataDir, {
      DATABASE_URL: database.url,
      DROVER_ROLES: roles,
      DROVER_INVENTORY_SECONDS: "1",
    });
  // The first one makes what they share: the secret key and the installation.
  const first = await start("api");
  apis = [first, await start("api")];
  workers = await Promise.all(Array.from({ length: WORKERS }, () => start("worker")));
  rig = await openSimRig(database, VMS);
});

afterAll(async () => {
  await Promise.all([...apis, ...workers].map((service) => service.kill()));
  await rig.close();
  await database.drop();
  await rm(dataDir, { recursive: true, force: true });
});

const names = Array.from({ length: VMS }, (_, index) => `vm-${index}`);

/** What clients ask for, on one VM; each client goes through it from another place. */
function changesOf(name: string, index: number): readonly Change[] {
  const path = `/v1/vms/${name}`;
  const spec = {
    cpu: { count: 1 },
    memoryMib: 128,
    disks: [{ name: "root", sizeGib: 1 }],
    placement: { host: `host-${index % VMS}` },
  };
  return [
    { method: "POST", path: "/v1/vms", body: { name, spec } },
    ...vmActions.map((action): Change => ({ method: "POST", path: `${path}/${action.name}`, body: {} })),
    { method: "POST", path: `${path}/stop`, body: { mode: "force" } },
    { method: "POST", path: "/v1/vms", body: { name, spec } },
    { method: "DELETE", path },
  ];
}

interface Answer {
  readonly status: number;
  readonly operationId: string | null;
}

async function send(service: CrashService, { method, path, body }: Change): Promise<Answer> {
  const answer = await fetch(`${service.url}${path}`, {
    method,
    headers: {
      authorization: `Bearer ${TOKEN}`,
      ...(body === undefined ? {} : { "content-type": "application/json" }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const told = (await answer.json()) as { readonly operation?: Pick<EndedOperation, "id"> };
  return { status: answer.status, operationId: told.operation?.id ?? null };
}

/** One client: now this VM, now that one, through one API and then the other, and every fifth operation cancelled. */
async function client(number: number): Promise<number[]> {
  const statuses: number[] = [];
  for (let turn = 0; turn < REQUESTS_EACH; turn++) {
    const index = (number + turn) % VMS;
    const changes = changesOf(names[index] ?? "", index);
    const change = changes[(number * 5 + turn * 7) % changes.length];
    const [api, other] = turn % 2 === 0 ? apis : apis.toReversed();
    if (change === undefined || api === undefined || other === undefined) continue;
    const { status, operationId } = await send(api, change);
    statuses.push(status);
    if (operationId === null || turn % 5 !== 0) continue;
    const cancel = { method: "POST", path: `/v1/operations/${operationId}/cancel` } as const;
    statuses.push((await send(other, cancel)).status);
  }
  return statuses;
}

it("keeps the order of each VM while many clients change few of them through several processes", {
  timeout: 240_000,
}, async () => {
  const call = callerOf(() => apis[0]?.url ?? "");
  for (const { name, registration } of rig.hosts)
    await call.done({ method: "POST", path: "/v1/hosts", body: { name, ...registration } });

  const statuses = (await Promise.all(Array.from({ length: CLIENTS }, (_, number) => client(number)))).flat();
  expect(statuses.filter((status) => ![202, 404, 409].includes(status))).toEqual([]);
  // A run in which all were refused would show nothing.
  expect(statuses.filter((status) => status === 202).length).toBeGreaterThan(150);

  const { db } = database;
  let complaints: readonly string[] = ["not looked yet"];
  for (const until = performance.now() + 120_000; performance.now() < until; ) {
    complaints = await complaintsOf(db, await rig.world(), { dataDir, workers: WORKERS });
    if (complaints.length === 0) break;
    await sleep(250);
  }
  expect(complaints).toEqual([]);
  expect(await outOfOrder(db)).toEqual([]);
  const states = await db.operation.groupBy({ by: ["state"], _count: true });
  expect(states.map(({ state }) => state).sort()).not.toContain("attention");
  const log = await readFile(join(dataDir, "service.log"), "utf8");
  expect(
    log.split("\n").filter((line) => line.includes('"level":50') || line.includes('"level":60')),
  ).toEqual([]);
});

/** Operations on one VM of which a later one was taken before an earlier one had ended. */
async function outOfOrder(db: TestDatabase["db"]): Promise<unknown[]> {
  return await db.$queryRaw`
    SELECT a.id, a.kind, a.ended_at, b.id AS later_id, b.kind AS later_kind, b.started_at AS later_started_at
    FROM operation_subject sa JOIN operation_subject sb
      ON sb.kind = sa.kind AND sb.subject_id = sa.subject_id AND sb.seq > sa.seq
    JOIN operation a ON a.id = sa.operation_id JOIN operation b ON b.id = sb.operation_id
    WHERE sa.kind = 'vm' AND (sa.mode = 'exclusive' OR sb.mode = 'exclusive')
      AND b.started_at IS NOT NULL AND b.started_at < a.ended_at`;
}
