import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { getHost, getReadiness, getVm } from "../../openapi/sdk/index.ts";
import { StartupError } from "../../src/lib/startup-error.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/database.ts";
import {
  addHost,
  addVm,
  askForVm,
  clientOf,
  ok,
  operationEnd,
  startTestService,
  type TestService,
} from "../fixtures/service.ts";

const MAIN = new URL("../../src/main.ts", import.meta.url).pathname;

function eventually(look: () => Promise<unknown>) {
  return expect.poll(look, { timeout: 30_000, interval: 50 });
}

describe("services over one database and data directory", () => {
  let service: TestService;
  afterEach(async () => {
    await service.stop();
  });

  it("share the hosts, and each takes over when the other ends", async () => {
    service = await startTestService();
    const another = await service.startAnother();
    for (const name of ["h1", "h2", "h3"])
      await addHost(service, name, `sim+kvm://${name}?cpus=8&memoryGib=8`);
    const owners = async () => {
      const rows = await service.database.db.host.findMany({ select: { ownerId: true } });
      return new Set(rows.map(({ ownerId }) => ownerId)).size;
    };
    await eventually(owners).toBe(2);
    const elsewhere = { ...service, client: clientOf(another.url ?? "") };
    await addVm(elsewhere, "vm-1", { placement: { host: "h1" } });
    const { operation } = await askForVm(service, "vm-2", { placement: { host: "h2" } });
    await another.stop();
    expect(await operationEnd(service, operation.id)).toMatchObject({ state: "succeeded" });
    await eventually(owners).toBe(1);
    for (const host of ["h1", "h2", "h3"]) await addVm(service, `after-${host}`, { placement: { host } });
  });

  it("may be split: one answers, another works", async () => {
    service = await startTestService({ DROVER_ROLES: "api" });
    const worker = await service.startAnother({ DROVER_ROLES: "worker" });
    expect(worker.url).toBeNull();
    await addHost(service, "h1", "sim+kvm://h1?cpus=8&memoryGib=8");
    await addVm(service, "vm-1");
    const ready = await ok(getReadiness({ client: service.client }));
    expect(ready.checks.map(({ name }) => name)).toEqual(["database"]);
  });

  it("refuse to start with another secret key or another image directory", async () => {
    service = await startTestService();
    const other = await mkdtemp(join(tmpdir(), "drover-service-"));
    try {
      const key = Buffer.alloc(32, 9).toString("base64");
      await expect(service.startAnother({ DROVER_SECRET_KEY: key })).rejects.toThrow(/another secret key/);
      await writeFile(join(other, "secret.key"), key);
      await expect(service.startAnother({ DROVER_DATA_DIR: other })).rejects.toThrow(StartupError);
    } finally {
      await rm(other, { recursive: true, force: true });
    }
  });

  it("begin a new life after a lost lease, and go on with what was under way", async () => {
    service = await startTestService();
    await addHost(service, "h1", "sim+kvm://h1?cpus=8&memoryGib=8&latencyMs=200");
    const { vm, operation } = await askForVm(service, "vm-1");
    const { db } = service.database;
    await eventually(async () =>
      db.operationStep.count({ where: { operationId: operation.id } }),
    ).toBeGreaterThan(1);
    const [before] = await db.worker.findMany();
    await db.worker.deleteMany();
    expect(await operationEnd(service, operation.id)).toMatchObject({ state: "succeeded" });
    const [after] = await db.worker.findMany();
    expect(after?.id).not.toBe(before?.id);
    const made = await ok(getVm({ client: service.client, path: { vm: vm.id } }));
    expect(made.status).toMatchObject({ phase: "ready", power: "running" });
    const domains = await db.$queryRaw<unknown[]>`SELECT 1 FROM sim.domain`;
    expect(domains).toHaveLength(1);
  });
});

describe("the process", () => {
  let database: TestDatabase;
  let dataDir: string;
  const children: ChildProcess[] = [];
  beforeAll(async () => {
    database = await createTestDatabase();
    dataDir = await mkdtemp(join(tmpdir(), "drover-service-"));
  });
  afterEach(() => {
    for (const child of children.splice(0)) child.kill("SIGKILL");
  });
  afterAll(async () => {
    await database.drop();
    await rm(dataDir, { recursive: true, force: true });
  });

  interface Started {
    readonly child: ChildProcess;
    readonly ended: Promise<{ readonly status: number | null; readonly errors: string }>;
    /** The first line of standard output that holds this text. */
    readonly line: (text: string) => Promise<string>;
  }

  function start(environment: Readonly<Record<string, string>>, ...args: readonly string[]): Started {
    const child = spawn(process.execPath, [MAIN, ...args], {
      env: {
        PATH: process.env["PATH"],
        DATABASE_URL: database.url,
        DROVER_DATA_DIR: dataDir,
        DROVER_LISTEN: "127.0.0.1:0",
        DROVER_ADMIN_TOKEN: "test-token-of-this-service",
        DROVER_LOG_LEVEL: "fatal",
        ...environment,
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    children.push(child);
    let out = "";
    let errors = "";
    child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
    const ended = once(child, "close").then(([status]) => ({ status: status as number | null, errors }));
    const line = async (text: string) => {
      await eventually(() => Promise.resolve(out)).toContain(text);
      return out.split("\n").find((each) => each.includes(text)) ?? "";
    };
    return { child, ended, line };
  }

  it("ends by itself after SIGTERM, also while a host hangs and a client waits", async () => {
    const { child, ended, line } = start({ DROVER_DRAIN_SECONDS: "1" });
    const url = (await line("Drover listens on ")).replace("Drover listens on ", "");
    const client = clientOf(url);
    const { simControl } = await import("../../src/hypervisors/sim/sim-control-store.ts");
    const sim = await simControl(database.url);
    try {
      const service = { url, client, database } as TestService;
      const uri = "sim+kvm://hung?cpus=8&memoryGib=8";
      await addHost(service, "hung", uri);
      await sim.hangNextCalls(uri, "startDomain", 100);
      const { operation } = await askForVm(service, "vm-1");
      const waiting = operationEnd(service, operation.id).catch(() => null);
      await eventually(async () =>
        database.db.operationStep.count({ where: { operationId: operation.id } }),
      ).toBe(5);
      child.kill("SIGTERM");
      expect(await ended).toEqual({ status: 0, errors: "" });
      await waiting;
      const row = await database.db.operation.findUniqueOrThrow({ where: { id: operation.id } });
      expect(row).toMatchObject({ token: null, endedAt: null });
      expect(await database.db.worker.count()).toBe(0);
      expect(await database.db.host.count({ where: { NOT: { ownerId: null } } })).toBe(0);
      await sim.clearFaults(uri);
      // The next one goes on where this one stopped.
      const next = start({});
      const again = clientOf((await next.line("Drover listens on ")).replace("Drover listens on ", ""));
      expect(await operationEnd({ ...service, client: again }, operation.id)).toMatchObject({
        state: "succeeded",
      });
      expect((await ok(getHost({ client: again, path: { host: "hung" } }))).status.state).toBe("ready");
      next.child.kill("SIGINT");
      expect((await next.ended).status).toBe(0);
    } finally {
      await sim.close();
    }
  });

  it("says in one line that its port is taken, and leaves nothing behind", async () => {
    const other = createServer();
    other.listen(0, "127.0.0.1");
    await once(other, "listening");
    const address = other.address();
    const port = typeof address === "object" ? (address?.port ?? 0) : 0;
    try {
      const { status, errors } = await start({ DROVER_LISTEN: `127.0.0.1:${port}` }).ended;
      expect(status).toBe(69);
      expect(errors).toMatch(/^DROVER_LISTEN: cannot listen on 127\.0\.0\.1:\d+: another program[^\n]+\n$/);
      expect(await database.db.worker.count()).toBe(0);
    } finally {
      other.close();
    }
  });

  it.each([
    ["a wrong variable", { DROVER_ROLES: "boss" }, [], 78, /^DROVER_ROLES: [^\n]+\n$/],
    ["a wrong command", {}, ["dance"], 78, /^usage: [^\n]+\n$/],
    [
      "no certificate",
      { DROVER_TLS_CERT: "/no/such", DROVER_TLS_KEY: "/no/such" },
      [],
      69,
      /^DROVER_TLS_CERT: \/no\/such [^\n]+\n$/,
    ],
    [
      "a list that is none",
      { DROVER_IMAGE_IMPORT_ALLOW: "10.0.0.0/99" },
      [],
      69,
      /^DROVER_IMAGE_IMPORT_ALLOW: [^\n]+\n$/,
    ],
    [
      "a database that does not answer",
      { DATABASE_URL: "postgresql://127.0.0.1:1/none" },
      [],
      69,
      /^[^\n]+\n$/,
    ],
    ["a directory that is a file", { DROVER_DATA_DIR: MAIN }, [], 69, /^Drover cannot start: [^\n]+\n$/],
  ])("ends with status and one line for %s", async (_what, environment, args, expected, message) => {
    const { status, errors } = await start(environment, ...args).ended;
    expect(errors).toMatch(message);
    expect(status).toBe(expected);
  });
});
