import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { TestDatabase } from "../fixtures/database.ts";

/** What the hosts of a rig really hold. */
export interface World {
  /** Power by UUID. */
  readonly domains: ReadonlyMap<string, string>;
  /** Names of the volumes of all hosts. */
  readonly volumes: readonly string[];
  /** UUIDs of the domains that have a console log. */
  readonly consoleLogs: readonly string[];
  /** UUIDs of the networks that are ours, each once for each host that has it; absent where they are not looked at. */
  readonly networks?: readonly string[];
  /** MAC addresses that DHCP of these gives an address to. */
  readonly leases?: readonly string[];
}

type Db = TestDatabase["db"];

/**
 * What is wrong between the inventory and the world, and what was left behind, once nothing is under way. Empty:
 * nothing.
 */
export async function complaintsOf(
  db: Db,
  world: World,
  { dataDir, workers }: { readonly dataDir: string; readonly workers: number },
): Promise<string[]> {
  return [
    ...(await openEnds(db, workers)),
    ...(await domainComplaints(db, world)),
    ...(await networkComplaints(db, world)),
    ...(await copyComplaints(db, world)),
    ...(await imageComplaints(db, join(dataDir, "images"))),
  ];
}

/** Locks, claims, leases and reservations that nobody stands behind, each as a count that should be 0. */
async function openEnds(db: Db, workers: number): Promise<string[]> {
  const rows = await db.$queryRaw<{ what: string; count: number }[]>`
    SELECT 'unfinished operations' AS what, count(*)::int AS count FROM operation WHERE ended_at IS NULL
    UNION ALL SELECT 'claimed operations', count(*)::int FROM operation WHERE token IS NOT NULL OR worker_id IS NOT NULL
    UNION ALL SELECT 'lanes held', count(*)::int FROM operation_subject WHERE unfinished OR active
    UNION ALL SELECT 'workers too many', count(*)::int - ${workers}::int FROM worker
    UNION ALL SELECT 'hosts without a living owner', count(*)::int FROM host h
      WHERE NOT EXISTS (SELECT FROM worker w WHERE w.id = h.owner_id)
    UNION ALL SELECT 'hosts not ready', count(*)::int FROM host WHERE state <> 'ready'
    UNION ALL SELECT 'VMs without their reservation', count(*)::int FROM vm v
      WHERE NOT EXISTS (SELECT FROM reservation r WHERE r.vm_id = v.id AND r.host_id = v.host_id)
    UNION ALL SELECT 'reservations without a VM', count(*)::int FROM reservation r
      WHERE NOT EXISTS (SELECT FROM vm v WHERE v.id = r.vm_id)
    UNION ALL SELECT 'volume rows without an owner', count(*)::int FROM volume
      WHERE vm_id IS NULL AND own_name IS NULL
    UNION ALL SELECT 'volume rows that hold an image', count(*)::int FROM volume WHERE image_id IS NOT NULL
    UNION ALL SELECT 'events without a number', count(*)::int FROM event WHERE seq IS NULL
    UNION ALL SELECT 'advisory locks of transactions', count(*)::int FROM pg_locks l
      JOIN pg_stat_activity a ON a.pid = l.pid AND a.xact_start < clock_timestamp() - interval '3 seconds'
      WHERE l.locktype = 'advisory' AND a.datname = current_database()`;
  return rows.filter(({ count }) => count !== 0).map(({ what, count }) => `${what}: ${count}`);
}

async function domainComplaints(db: Db, world: World): Promise<string[]> {
  const vms = await db.vm.findMany({ select: { id: true, name: true, phase: true, power: true } });
  const ready = vms.filter(({ phase }) => phase === "ready");
  const owners = new Set(ready.map(({ id }) => id));
  const rows = await db.volume.findMany({ select: { name: true, vmId: true, state: true } });
  const wanted = rows.filter(({ vmId, state }) => (vmId === null ? state !== "failed" : owners.has(vmId)));
  return [
    ...vms
      .filter(({ phase }) => phase !== "ready" && phase !== "failed")
      .map(({ name, phase }) => `VM ${name} is still ${phase}`),
    ...ready.flatMap(({ id, name, power }) => {
      const real = world.domains.get(id) ?? "absent";
      return real === power ? [] : [`VM ${name} is ${power} in the inventory and ${real} on its host`];
    }),
    ...[...world.domains.keys()].filter((id) => !owners.has(id)).map((id) => `domain ${id} belongs to no VM`),
    ...[...world.consoleLogs]
      .filter((id) => !owners.has(id))
      .map((id) => `console log of ${id} belongs to no VM`),
    ...differences(
      "volume",
      wanted.map(({ name }) => name),
      world.volumes.filter((name) => !isCopy(name)),
    ),
    ...wanted.filter(({ state }) => state !== "ready").map(({ name }) => `volume ${name} is not ready`),
  ];
}

/**
 * A network may be written down for a host that does not have it yet, but not the other way round. A lease is there for
 * each NIC of a VM that was made, and for nothing else.
 */
async function networkComplaints(db: Db, world: World): Promise<string[]> {
  const unfinished = await db.network.findMany({ where: { state: "deleting" }, select: { name: true } });
  const rows = await db.networkHost.findMany({ select: { networkId: true } });
  const written = rows.map(({ networkId }) => networkId);
  const nics = await db.vmNic.findMany({
    where: { networkId: { not: null }, vm: { phase: "ready" } },
    select: { macAddress: true, attached: true, name: true },
  });
  const addresses = await db.$queryRaw<{ count: number }[]>`
    SELECT count(*)::int AS count FROM vm_nic c WHERE c.network_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM network_address a WHERE a.vm_id = c.vm_id AND a.nic_name = c.name)`;
  const surplus = (world.networks ?? []).filter(
    (id) =>
      (world.networks ?? []).filter((other) => other === id).length >
      written.filter((other) => other === id).length,
  );
  return [
    ...unfinished.map(({ name }) => `network ${name} is still being deleted`),
    ...[...new Set(surplus)].map((id) => `network ${id} is on more hosts than is written down`),
    ...(addresses[0]?.count === 0 ? [] : ["a NIC has no address"]),
    ...nics.filter(({ attached }) => !attached).map(({ name }) => `NIC ${name} is still being attached`),
    ...(world.leases === undefined
      ? []
      : differences(
          "lease",
          nics.map(({ macAddress }) => macAddress),
          world.leases,
        )),
  ];
}

function isCopy(name: string): boolean {
  return name.startsWith("drover-image-");
}

/** Copies of images that are half there, that nobody needs, or that are not where the inventory has them. */
async function copyComplaints(db: Db, world: World): Promise<string[]> {
  const copies = await db.hostImage.findMany({ select: { name: true, state: true, sha256: true } });
  const images = await db.image.findMany({ where: { state: "ready" }, select: { sha256: true } });
  const contents = new Set(images.map(({ sha256 }) => sha256));
  const found = world.volumes.filter(isCopy);
  const count = (names: readonly string[], name: string): number =>
    names.filter((other) => other === name).length;
  const wanted = copies.map(({ name }) => name);
  const held = await db.hostImageUse.count({ where: { volume: { format: "raw", vm: { phase: "ready" } } } });
  return [
    ...copies.filter(({ state }) => state !== "ready").map(({ name, state }) => `copy ${name} is ${state}`),
    ...copies.filter(({ sha256 }) => !contents.has(sha256)).map(({ name }) => `copy ${name} is of no image`),
    ...[...new Set([...wanted, ...found])]
      .filter((name) => count(wanted, name) !== count(found, name))
      .map((name) => `copy ${name}: ${count(wanted, name)} wanted, ${count(found, name)} found`),
    ...(held === 0 ? [] : [`copies held by volumes that are complete: ${held}`]),
  ];
}

async function imageComplaints(db: Db, directory: string): Promise<string[]> {
  const images = await db.image.findMany({ select: { id: true, name: true, sha256: true, state: true } });
  const digests = images.flatMap(({ sha256, state }) =>
    sha256 === null || state !== "ready" ? [] : [sha256],
  );
  const files = await readdir(join(directory, "sha256"), { recursive: true, withFileTypes: true });
  return [
    ...images
      .filter(({ state }) => state === "importing" || state === "building")
      .map(({ name, state }) => `image ${name} is still ${state}`),
    ...differences(
      "content",
      digests,
      files.filter((file) => file.isFile()).map(({ name }) => name),
    ),
    ...(await readdir(join(directory, "incoming"))).map((name) => `incoming file ${name} was left behind`),
    ...(await namesIn(join(directory, "builds"))).map((name) => `build ${name} was left behind`),
    ...(await namesIn(join(directory, "build-logs")))
      .filter((name) => !images.some(({ id }) => name.startsWith(id)))
      .map((name) => `build log ${name} belongs to no image`),
  ];
}

/** None where there is no such directory. */
async function namesIn(directory: string): Promise<string[]> {
  return await readdir(directory).catch(() => []);
}

function differences(what: string, wanted: readonly string[], found: readonly string[]): string[] {
  return [
    ...wanted.filter((name) => !found.includes(name)).map((name) => `${what} ${name} is missing`),
    ...found.filter((name) => !wanted.includes(name)).map((name) => `${what} ${name} belongs to nobody`),
  ];
}
