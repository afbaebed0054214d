import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { getReadiness, listEvents, listVms, stopVm } from "../../openapi/sdk/index.ts";
import { removeEmbeddedPostgres } from "../../src/db/embedded-postgres.ts";
import { readPostmasterFile, serverProcesses } from "../../src/db/embedded-postgres-process.ts";
import { domainOf, FaultScene, PATIENCE } from "../fixtures/fault-scene.ts";
import { type OwnPostgres, startOwnPostgres } from "../fixtures/own-postgres.ts";
import { ok } from "../fixtures/service.ts";
import { type ServiceProcess, startServiceProcess } from "../fixtures/service-process.ts";
import { makeScratchDirectory } from "../fixtures/temporary-directory.ts";
import { type KvmHost, startKvmHost } from "../rigs/kvm/kvm-host.ts";

// A service whose database goes away and comes back, with a real host that lives on meanwhile.

vi.setConfig({ testTimeout: 300_000 });

/** A request that is not answered by then hangs. */
const HANGS_AFTER_MS = 45_000;
const AT_ONCE = 4;

let dataDir: string;
let database: OwnPostgres;
let host: KvmHost;
let service: ServiceProcess;
let scene: FaultScene;

beforeAll(async () => {
  dataDir = await makeScratchDirectory();
  [database, host] = await Promise.all([startOwnPostgres(), startKvmHost()]);
  service = await startServiceProcess(dataDir, {
    DATABASE_URL: database.url,
    DROVER_LEASE_SECONDS: "3",
    DROVER_INVENTORY_SECONDS: "3600",
  });
  scene = new FaultScene(service.client);
  await scene.addHost("local", host);
}, 180_000);

afterAll(async () => {
  database.thaw();
  await service.stop();
  await Promise.all([database.remove(), host.stop()]);
  await rm(dataDir, { recursive: true, force: true });
}, 120_000);

interface Answer {
  readonly status: number;
  readonly type: string | null;
  readonly retryAfter: string | null;
  readonly body: unknown;
}

async function send(method: string, path: string, body?: object, key?: string): Promise<Answer> {
  const response = await fetch(`${service.url}${path}`, {
    method,
    headers: {
      authorization: `Bearer ${service.token}`,
      "content-type": "application/json",
      ...(key === undefined ? {} : { "idempotency-key": key }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    signal: AbortSignal.timeout(HANGS_AFTER_MS),
  });
  const { status, headers } = response;
  const text = await response.text();
  return {
    status,
    type: headers.get("content-type"),
    retryAfter: headers.get("retry-after"),
    body: JSON.parse(text),
  };
}

const UNAVAILABLE = {
  status: 503,
  type: expect.stringContaining("application/problem+json") as unknown,
  retryAfter: expect.stringMatching(/^[1-9]\d*$/) as unknown,
  body: { code: "unavailable", retry: "temporary" },
};

/** Asks without a pause until it is ended, for tokens too; returns every answer. */
function keepAsking(name: string) {
  let ended = false;
  let count = 0;
  const ask = async (): Promise<Answer[]> => {
    const answers: Answer[] = [];
    while (!ended) {
      answers.push(await send("GET", "/v1/vms"));
      answers.push(await send("POST", "/v1/tokens", { name: `${name}-${++count}` }));
      expect(await send("GET", "/healthz")).toMatchObject({ status: 200, body: { status: "ok" } });
    }
    return answers;
  };
  const all = Promise.all(Array.from({ length: AT_ONCE }, ask));
  all.catch(() => undefined); // told to whoever ends it
  return async (): Promise<Answer[]> => {
    ended = true;
    return (await all).flat();
  };
}

/** Reads the event stream from its beginning for as long as the service lets it. */
async function followEvents() {
  const end = new AbortController();
  const response = await fetch(`${service.url}/v1/events?after=0`, {
    headers: { authorization: `Bearer ${service.token}`, accept: "text/event-stream" },
    signal: end.signal,
  });
  let text = "";
  let isOver = false;
  const reading = (async () => {
    for await (const chunk of response.body ?? []) text += Buffer.from(chunk).toString();
  })()
    .catch(() => undefined)
    .finally(() => {
      isOver = true;
    });
  return {
    seqs: (): number[] => [...text.matchAll(/^id: (\d+)$/gm)].map(([, seq]) => Number(seq)),
    isOver: () => isOver,
    async end() {
      end.abort();
      await reading;
    },
  };
}

async function lastSeq(): Promise<number> {
  for (let after = "0"; ; ) {
    const { items, nextAfter } = await ok(
      listEvents({ client: service.client, query: { after, pageSize: 500 } }),
    );
    if (items.length === 0) return Number(after);
    after = nextAfter;
  }
}

const FAULTS = [
  ["is stopped", () => database.stop(), () => database.start()],
  [
    "hangs",
    async () => {
      database.freeze();
    },
    async () => {
      database.thaw();
    },
  ],
] as const;

describe.each(FAULTS)("a database that %s", (fault, goAway, comeBack) => {
  it("is answered with 503 while it is away, and everything goes on by itself when it is back", async () => {
    const name = fault.replaceAll(" ", "-");
    const [watched] = await Promise.all([
      scene.addVm(`watched-${name}`, "local"),
      scene.addVm(`busy-${name}`, "local"),
    ]);
    const events = await followEvents();
    const endAsking = keepAsking(name);
    // The guest hears nothing: the step takes its time, and the start waits behind it.
    const stopping = await ok(
      stopVm({ client: service.client, path: { vm: `busy-${name}` }, body: { timeoutSeconds: 5 } }),
    );
    const starting = await scene.ask(`busy-${name}`, "start");
    await expect
      .poll(() => scene.operation(stopping.operation), PATIENCE)
      .toMatchObject({ state: "running" });

    await goAway();
    const create = {
      name: `asked-for-${name}`,
      spec: { cpu: { count: 1 }, memoryMib: 64, disks: [{ name: "root", sizeGib: 1 }] },
    };
    expect(await send("POST", "/v1/vms", create, name)).toMatchObject(UNAVAILABLE);
    expect(await send("GET", `/v1/vms/busy-${name}`)).toMatchObject(UNAVAILABLE);
    await expect
      .poll(() => send("GET", "/readyz"), PATIENCE)
      .toMatchObject({
        ...UNAVAILABLE,
        body: {
          details: {
            checks: [
              { name: "database", ok: false },
              { name: "worker", ok: false },
            ],
          },
        },
      });
    process.kill(host.qemuPid(domainOf(watched)), "SIGKILL");
    await comeBack();

    await expect.poll(() => send("GET", "/readyz"), PATIENCE).toMatchObject({ status: 200 });
    const answers = await endAsking();
    for (const answer of answers) if (answer.status >= 300) expect(answer).toMatchObject(UNAVAILABLE);
    expect(answers.some(({ status }) => status === 503)).toBe(true);
    expect(await scene.end(stopping.operation)).toMatchObject({ state: "succeeded" });
    expect(await scene.end(starting)).toMatchObject({ state: "succeeded" });
    await scene.untilVm(`busy-${name}`, { power: "running" });
    await scene.untilVm(`watched-${name}`, { power: "crashed" });
    await scene.untilHost("local", { state: "ready", error: null });
    expect(await send("POST", "/v1/vms", create, name)).toMatchObject({ status: 202 });
    await scene.untilVm(create.name, { phase: "ready", power: "running" });
    const { items } = await ok(listVms({ client: service.client, query: { pageSize: 100 } }));
    expect(items.filter((vm) => vm.name === create.name)).toHaveLength(1);

    const last = await lastSeq();
    await expect.poll(() => events.seqs().at(-1) ?? 0, PATIENCE).toBeGreaterThanOrEqual(last);
    const seqs = events.seqs();
    expect(seqs).toEqual(seqs.map((_, index) => index + 1));
    expect(events.isOver()).toBe(false);
    await events.end();
    for (const vm of items) await scene.do(vm.name, "delete");
  });
});

describe("an embedded database that is killed", () => {
  it("is started again by the service, and the service goes on", async () => {
    const own = await makeScratchDirectory();
    const cluster = join(own, "postgres/cluster");
    const embedded = await startServiceProcess(own);
    const uses = new FaultScene(embedded.client);
    try {
      await uses.addHost("sim", { uri: "sim+kvm://embedded?cpus=8&memoryGib=8" });
      await uses.addVm("before", "sim");
      const pid = readPostmasterFile(cluster)?.pid ?? 0;
      process.kill(pid, "SIGKILL");
      await expect.poll(() => readPostmasterFile(cluster)?.pid ?? pid, PATIENCE).not.toBe(pid);
      const isReady = async () => (await getReadiness({ client: uses.client })).response?.status;
      await expect.poll(isReady, PATIENCE).toBe(200);
      await uses.untilHost("sim", { state: "ready" });
      await uses.untilVm("before", { power: "running" });
      await uses.addVm("after", "sim");
    } finally {
      expect(await embedded.stop()).toBe(0);
      expect(serverProcesses(cluster)).toEqual([]);
      await removeEmbeddedPostgres({ dataDir: own });
      await rm(own, { recursive: true, force: true });
    }
  });
});
