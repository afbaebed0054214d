import { createToken, createVm, registerHost } from "../../openapi/sdk/index.ts";
import { ok, operationEnd, type TestService } from "../fixtures/service.ts";
import { publicKey } from "../fixtures/ssh-keys.ts";
import type { Known } from "./fitting.ts";
import { CONTENTS } from "./uploads.ts";

/** What is there to be fuzzed: two simulated hosts, images, and VMs in every state that a VM rests in. */
export interface World {
  /** The token that the fuzz sends. Requests cannot name it, and so not revoke it. */
  readonly token: string;
  /** Names and ids to refer to, as of the last `tend`. */
  known(): Known;
  /** Remembers a page's token for later requests. */
  learnPageToken(token: string): void;
  /** Brings back what requests took away or changed, and takes away most of what they made. */
  tend(): Promise<void>;
  /** Begins an operation that goes on until it is cancelled, and makes it the one that requests know. */
  beginOperation(): Promise<void>;
  /** Cancels every operation under way. */
  cancelAll(): Promise<void>;
}

const HOSTS = { "host-a": "sim+kvm://a?cpus=64&memoryGib=64", "host-b": "sim+xen://b?cpus=64&memoryGib=64" };
/** Nobody listens there: the host that can be forgotten. */
const DOWN = { name: "host-down", uri: "qemu+tcp://127.0.0.1:1/system" };
const VMS = {
  "vm-running": "running",
  "vm-off": "off",
  "vm-paused": "paused",
  "vm-crashed": "crashed",
} as const;
const IMAGES = ["disk", "kernel", "initrd"] as const;
/** The one that has a build's log. */
const BUILT = "built";
const OWN_TOKENS: readonly string[] = ["admin", "fuzzer"];
const SSH_KEY = "spare-key";
const VOLUME = "spare-volume";
/** One that a VM can be without. */
const DISK = "extra";
const NETWORK = { name: "spare-network", kind: "nat", ipv4: { cidr: "10.200.0.0/24" } };
const NICS = ["eth0", "eth1", "eth2"] as const;
const LEFT_OVER = { vm: 8, host: 3, image: 6, sshKey: 6, network: 6, token: 10, volume: 6 };

type Call = (method: string, path: string, body?: unknown) => Promise<number>;

export async function createWorld(service: TestService): Promise<World> {
  const { db } = service.database;
  const { client } = service;
  const { secret = "" } = await ok(createToken({ client, body: { name: "fuzzer" } }));
  const call = callerOf(service);
  const pageTokens: string[] = ["x"];
  let known: Known = {};
  const world: World = {
    token: secret,
    known: () => known,
    learnPageToken: (token) => {
      pageTokens.push(token);
      if (pageTokens.length > 20) pageTokens.shift();
    },
    tend: async () => {
      await removeSurplus(service, call);
      for (const [name, uri] of Object.entries(HOSTS)) await ensureHost(service, call, name, uri);
      await call("POST", "/v1/hosts", DOWN);
      await call("POST", "/v1/tokens", { name: "spare" });
      await call("POST", "/v1/ssh-keys", { name: SSH_KEY, publicKey: publicKey(SSH_KEY) });
      await call("POST", "/v1/networks", NETWORK);
      for (const name of IMAGES) await ensureImage(service, name);
      const source = { kind: "debootstrap", suite: "bookworm" };
      await call("POST", "/v1/images?wait=30", { name: BUILT, kind: "disk", source });
      for (const [name, power] of Object.entries(VMS)) await ensureVm(service, call, name, power);
      await call("POST", "/v1/volumes?wait=10", { name: VOLUME, host: "host-a", sizeGib: 1 });
      for (const name of ["vm-off", "vm-running"])
        await call("POST", `/v1/vms/${name}/disks?wait=10`, { name: DISK, sizeGib: 1 });
      known = { ...(await readKnown(db)), pageToken: [...pageTokens] };
    },
    beginOperation: async () => {
      // A guest that is paused does not hear that it should stop.
      await call("POST", "/v1/vms/vm-paused/stop", { timeoutSeconds: 60 });
      const where = { endedAt: null, kind: "vm.stop" };
      const newest = await db.operation.findFirst({ where, orderBy: { seq: "desc" }, select: { id: true } });
      if (newest !== null) known = { ...known, operation: [newest.id] };
    },
    cancelAll: async () => {
      const operations = await db.operation.findMany({ where: { endedAt: null }, select: { id: true } });
      for (const { id } of operations) await call("POST", `/v1/operations/${id}/cancel?wait=1`);
    },
  };
  await world.tend();
  return world;
}

/** Calls as the keeper of the world; refusals are the keeper's business. */
function callerOf({ url, token }: TestService): Call {
  return async (method, path, body) => {
    const json = body === undefined ? {} : { "content-type": "application/json" };
    const response = await fetch(`${url}${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, ...json },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    await response.arrayBuffer();
    return response.status;
  };
}

type Db = TestService["database"]["db"];
const NEWEST = { orderBy: { createdAt: "desc" }, take: 12, select: { id: true, name: true } } as const;

async function readKnown(db: Db): Promise<Known> {
  const [vms, hosts, images, ready, sshKeys, networks, volumes, tokens, operations] = await Promise.all([
    db.vm.findMany(NEWEST),
    db.host.findMany(NEWEST),
    db.image.findMany(NEWEST),
    db.image.findMany({ where: { name: { in: [...IMAGES] } }, select: { id: true } }),
    db.sshKey.findMany(NEWEST),
    db.network.findMany(NEWEST),
    db.volume.findMany({ ...NEWEST, select: { id: true, ownName: true } }),
    db.apiToken.findMany({ ...NEWEST, where: { name: { notIn: [...OWN_TOKENS] }, revokedAt: null } }),
    db.operation.findMany({ orderBy: { seq: "desc" }, take: 20, select: { id: true } }),
  ]);
  // Those that are always there come first and more often.
  const refer = (fixed: readonly string[], rows: readonly { id: string; name: string }[]): string[] => [
    ...[...fixed, ...fixed, ...fixed],
    ...rows.flatMap(({ id, name }) => [id, name]),
  ];
  return {
    vm: refer(Object.keys(VMS), vms),
    host: refer([...Object.keys(HOSTS), DOWN.name], hosts),
    image: refer([...IMAGES, BUILT], images),
    imageId: ready.map(({ id }) => id),
    sshKey: refer([SSH_KEY], sshKeys),
    network: refer([NETWORK.name], networks),
    nic: NICS,
    token: refer(["spare"], tokens),
    operation: operations.map(({ id }) => id),
    volume: refer(
      [VOLUME],
      volumes.map(({ id, ownName }) => ({ id, name: ownName ?? id })),
    ),
    disk: [DISK, DISK, "root"],
  };
}

async function removeSurplus({ database: { db } }: TestService, call: Call): Promise<void> {
  const surplus = <Row extends { name: string }>(
    rows: readonly Row[],
    kept: readonly string[],
    most: number,
  ) => {
    const found = rows.filter(({ name }) => !kept.includes(name));
    return found.length > most ? found : [];
  };
  const vms = surplus(await db.vm.findMany({ select: { name: true } }), Object.keys(VMS), LEFT_OVER.vm);
  for (const { name } of vms) await call("DELETE", `/v1/vms/${name}?wait=10`);
  const hosts = surplus(
    await db.host.findMany({ select: { name: true } }),
    [...Object.keys(HOSTS), DOWN.name],
    LEFT_OVER.host,
  );
  for (const { name } of hosts) await call("DELETE", `/v1/hosts/${name}`);
  const kept = [...IMAGES, BUILT];
  const images = surplus(await db.image.findMany({ select: { name: true } }), kept, LEFT_OVER.image);
  for (const { name } of images) await call("DELETE", `/v1/images/${name}`);
  const free = await db.volume.findMany({ where: { vmId: null }, select: { id: true, ownName: true } });
  const volumes = free.map(({ id, ownName }) => ({ id, name: ownName ?? "" }));
  for (const { id } of surplus(volumes, [VOLUME], LEFT_OVER.volume))
    await call("DELETE", `/v1/volumes/${id}`);
  const sshKeys = surplus(await db.sshKey.findMany({ select: { name: true } }), [SSH_KEY], LEFT_OVER.sshKey);
  for (const { name } of sshKeys) await call("DELETE", `/v1/ssh-keys/${name}`);
  const networks = surplus(
    await db.network.findMany({ select: { name: true } }),
    [NETWORK.name],
    LEFT_OVER.network,
  );
  for (const { name } of networks) await call("DELETE", `/v1/networks/${name}`);
  const rows = await db.apiToken.findMany({ where: { revokedAt: null }, select: { id: true, name: true } });
  for (const { id } of surplus(rows, OWN_TOKENS, LEFT_OVER.token)) await call("DELETE", `/v1/tokens/${id}`);
}

async function ensureHost(service: TestService, call: Call, name: string, uri: string): Promise<void> {
  const { client, database } = service;
  const found = await database.db.host.findUnique({ where: { name }, select: { uri: true } });
  if (found === null) {
    const body = { name, uri };
    const { operation } = await ok(registerHost({ client, body, query: { wait: 30 } }));
    if (operation.state !== "succeeded") throw new Error(`no host: ${JSON.stringify(operation)}`);
    return;
  }
  const rules = { reserve: { memoryMib: 0, cpuCount: 0 }, overcommit: { cpu: 16, memory: 1 } };
  await call("PATCH", `/v1/hosts/${name}`, rules);
  await call("POST", `/v1/hosts/${name}/uncordon`);
}

/** Uploads an image of its name's kind, unless it is there. */
async function ensureImage(
  { url, token, database }: TestService,
  name: (typeof IMAGES)[number],
): Promise<void> {
  if ((await database.db.image.count({ where: { name, state: "ready" } })) > 0) return;
  const response = await fetch(`${url}/v1/images/${name}/content?kind=${name}`, {
    method: "PUT",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/octet-stream" },
    body: CONTENTS[name],
  });
  const answer = await response.text();
  if (!response.ok && response.status !== 409) throw new Error(`no image: ${answer}`);
}

async function ensureVm(
  service: TestService,
  call: Call,
  name: string,
  power: (typeof VMS)[keyof typeof VMS],
): Promise<void> {
  const { client } = service;
  const found = await findVm(service, name);
  if (found?.phase === "ready" && found.power === power) return;
  if (found !== null && found.phase !== "ready") await call("DELETE", `/v1/vms/${name}?wait=20`);
  if ((await findVm(service, name)) === null) {
    const spec = {
      hypervisor: "kvm",
      cpu: { count: 1 },
      memoryMib: 64,
      disks: [{ name: "root", sizeGib: 1 }],
      nics: NICS.map((nic) => ({ name: nic, network: "default" })),
    };
    const body = { name, spec: { ...spec, hypervisor: "kvm" as const, placement: { host: "host-a" } } };
    const { operation } = await ok(createVm({ client, body }));
    await operationEnd(service, operation.id);
  }
  await bringTo(service, call, name, power);
}

async function bringTo(service: TestService, call: Call, name: string, power: string): Promise<void> {
  const path = `/v1/vms/${name}`;
  if (power === "off") {
    await call("POST", `${path}/stop?wait=10`, { mode: "force" });
    return;
  }
  await call("POST", `${path}/resume?wait=10`);
  await call("POST", `${path}/start?wait=10`);
  if (power === "paused") await call("POST", `${path}/pause?wait=10`);
  const vm = await findVm(service, name);
  if (power !== "crashed" || vm === null || vm.domainUuid === null) return;
  const host = await service.database.db.host.findFirst({ where: { id: vm.hostId ?? "" } });
  if (vm.power === "running" && host !== null) await service.sim.crashDomain(host.uri, vm.domainUuid);
}

async function findVm({ database }: TestService, name: string) {
  const select = { phase: true, power: true, domainUuid: true, hostId: true } as const;
  return await database.db.vm.findFirst({ where: { name }, select });
}
