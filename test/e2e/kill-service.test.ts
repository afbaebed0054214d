import { randomBytes } from "node:crypto";
import { rm } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import {
  createVm,
  deleteVm,
  listOperations,
  listVms,
  type Operation,
  registerHost,
  uploadImage,
  type Vm,
} from "../../openapi/sdk/index.ts";
import { type ServiceProcess, startServiceProcess } from "../fixtures/service-process.ts";
import { makeScratchDirectory } from "../fixtures/temporary-directory.ts";
import { type KvmHost, startKvmHost } from "../rigs/kvm/kvm-host.ts";

const KILLS = 30;
// Large enough that a kill meets an upload; its content boots nothing, so that guests cost no CPU.
const IMAGE_BYTES = 24 * 1024 * 1024;
const SEED = 20_261_123;
// A worker that was killed is given up after so long: kills come before, in and after the work that others left.
const LEASE_SECONDS = 3;

let host: KvmHost;
let dataDir: string;
let service: ServiceProcess;

/** A small generator, so that a failure can be seen again: mulberry32, public domain. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

beforeAll(async () => {
  dataDir = await makeScratchDirectory();
  host = await startKvmHost();
  service = await startServiceProcess(dataDir, { DROVER_LEASE_SECONDS: String(LEASE_SECONDS) });
  const { client } = service;
  await registerHost({
    client,
    throwOnError: true,
    body: { name: "local", uri: host.uri, accelerator: "tcg", overcommit: { cpu: 64 } },
    query: { wait: 30 },
  });
  const body = new Blob([randomBytes(IMAGE_BYTES)]);
  await uploadImage({ client, throwOnError: true, path: { image: "noise" }, query: { kind: "disk" }, body });
}, 120_000);

afterAll(async () => {
  await service.stop();
  await host.stop();
  await rm(dataDir, { recursive: true, force: true });
}, 120_000);

/** What the killed service may leave unanswered: a request that breaks is sent again by nobody. */
async function attempt(request: Promise<unknown>): Promise<void> {
  await request.catch(() => undefined);
}

function create(name: string): Promise<unknown> {
  return createVm({
    client: service.client,
    headers: { "Idempotency-Key": name },
    body: { name, spec: { cpu: { count: 1 }, memoryMib: 64, disks: [{ name: "root", image: "noise" }] } },
  });
}

async function vms(): Promise<Vm[]> {
  const { data } = await listVms({ client: service.client, throwOnError: true, query: { pageSize: 500 } });
  return data.items;
}

async function unfinished(): Promise<Operation[]> {
  const { data } = await listOperations({
    client: service.client,
    throwOnError: true,
    query: { pageSize: 500 },
  });
  expect(data.nextPageToken).toBeUndefined();
  return data.items.filter((operation) => operation.endedAt === null);
}

async function untilAllEnded(): Promise<void> {
  const deadline = performance.now() + 180_000;
  for (;;) {
    const left = await unfinished();
    if (left.length === 0) return;
    if (performance.now() > deadline) throw new Error(`still unfinished: ${JSON.stringify(left, null, 1)}`);
    await sleep(250);
  }
}

async function virshList(args: readonly string[]): Promise<string[]> {
  const lines = (await host.virsh(args)).split("\n").map((line) => line.trim());
  return lines.filter((line) => line !== "").sort();
}

/** The volumes of pool `default`, without the guests' console logs. */
async function volumes(): Promise<string[]> {
  await host.virsh(["pool-refresh", "default"]);
  const names = (await virshList(["vol-list", "default"])).map((line) => line.split(/\s+/)[0] ?? "");
  return names.filter((name) => name.endsWith("-disk-root.raw"));
}

it(`loses and doubles nothing when it is killed ${KILLS} times during creates and deletes`, {
  timeout: 900_000,
}, async () => {
  const random = seeded(SEED);
  for (let round = 0; round < KILLS; round++) {
    const requests = [attempt(create(`vm-${round}-a`)), attempt(create(`vm-${round}-b`))];
    const old = (await vms()).filter(({ status }) => status.phase !== "deleting");
    for (const { name } of old.slice(0, Math.floor(random() * 4))) {
      requests.push(attempt(deleteVm({ client: service.client, path: { vm: name } })));
    }
    await sleep(LEASE_SECONDS * 1_000 * random() + 1_000 * random());
    await service.kill();
    await Promise.all(requests);
    service = await startServiceProcess(dataDir, { DROVER_LEASE_SECONDS: String(LEASE_SECONDS) });
  }
  // However little of the rounds came through on a slow machine, the service still makes a VM.
  await attempt(create("last"));
  await untilAllEnded();

  const present = await vms();
  const ready = present.filter(({ status }) => status.phase === "ready");
  expect(present.filter(({ status }) => status.phase !== "ready" && status.phase !== "failed")).toEqual([]);
  expect(
    ready.map(({ name }) => name),
    JSON.stringify(present),
  ).toContain("last");
  expect(await virshList(["list", "--all", "--uuid"])).toEqual(ready.map(({ id }) => id).sort());
  expect(await virshList(["list", "--uuid"])).toEqual(ready.map(({ id }) => id).sort());
  const owners = (await volumes()).map(
    (name) => /^drover-[0-9a-f]{12}-(.{36})-disk-root\.raw$/.exec(name)?.[1],
  );
  expect(owners.sort()).toEqual(ready.map(({ id }) => id).sort());

  await Promise.all(present.map(({ name }) => deleteVm({ client: service.client, path: { vm: name } })));
  await untilAllEnded();
  expect(await vms()).toEqual([]);
  expect(await virshList(["list", "--all", "--uuid"])).toEqual([]);
  // What is kept of images is theirs, and they are still there.
  const files = (await host.exec("ls", ["/var/lib/libvirt/images"])).split("\n");
  expect(files.filter((name) => name !== "" && !name.startsWith("drover-image-"))).toEqual([]);
});
