import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { createTestDatabase, type TestDatabase } from "../fixtures/database.ts";
import { makeScratchDirectory } from "../fixtures/temporary-directory.ts";
import { callerOf } from "./caller.ts";
import type { Cell } from "./cells.ts";
import { complaintsOf, type World } from "./complaints.ts";
import { type CrashService, startCrashService } from "./crash-service.ts";
import { MOST_WITHOUT_HOST } from "./groups.ts";
import { diskContent, serveImages, uploadImage } from "./image-server.ts";
import {
  CAMPAIGN_NETWORK,
  DISK_IMAGE,
  KERNEL_IMAGE,
  type Place,
  POOL,
  type Stage,
  sceneOf,
} from "./scenes.ts";
import { type Act, type Effect, powerOf, verdictOn, vmIdOf } from "./verdict.ts";

/** What the guests of a rig are. */
export interface Guest {
  /** A kernel that sleeps at once; the text makes it another content. */
  readonly kernel: (text: string) => Buffer;
  /** What their spec says besides. */
  readonly spec: object;
  /** Whether one that runs takes disks and lets go of them. */
  readonly takesDisks: boolean;
}

/** The hosts that a campaign plays on, and how to look at what they really hold. */
export interface Rig {
  /** The operations that act at once are spread over these. */
  readonly hosts: readonly { readonly name: string; readonly registration: object }[];
  readonly newHostUri: (name: string) => string;
  readonly deafen: (vmId: string, host: string) => Promise<void>;
  readonly guest: Guest;
  /** Whether its guests are in a network of the project. */
  readonly makesNetworks: boolean;
  world(): Promise<World>;
  close(): Promise<void>;
}

/** Kills services in the middle of operations, starts them again, and looks at what became of everything. */
export interface Campaign {
  /** Plays these scenes unharmed, to learn what they lead to. */
  rehearse(scenes: readonly string[]): Promise<void>;
  /** One kill that meets all these operations at once, one restart, and every check. Throws with all that is wrong. */
  strike(cells: readonly Cell[]): Promise<void>;
  stop(): Promise<void>;
}

/** What the parts of a campaign share. */
export interface Field {
  readonly database: TestDatabase;
  readonly dataDir: string;
  readonly rig: Rig;
  readonly stage: Stage;
}

// A worker that loses its lease on a busy machine would wait for what is held here, which never ends. A dead one is
// noticed by its session lock, long before its lease is over.
const LEASE_SECONDS = 120;
// For an emulated machine that runs a hypervisor of its own.
const HELD_LIMIT_MS = 300_000;
const SETTLE_LIMIT_MS = 180_000;

export async function startCampaign(
  openRig: (database: TestDatabase) => Promise<Rig>,
  { inventorySeconds = 5 } = {},
): Promise<Campaign> {
  const database = await createTestDatabase();
  const dataDir = await makeScratchDirectory();
  const images = await serveImages();
  const start = (): Promise<CrashService> =>
    startCrashService(dataDir, {
      DATABASE_URL: database.url,
      DROVER_LEASE_SECONDS: String(LEASE_SECONDS),
      DROVER_INVENTORY_SECONDS: String(inventorySeconds),
      DROVER_IMAGE_IMPORT_ALLOW: "127.0.0.1",
      // None waits for another that is held.
      DROVER_IMAGE_BUILDS_PER_WORKER: String(MOST_WITHOUT_HOST),
    });
  let service = await start();
  const call = callerOf(() => service.url);
  const rig = await openRig(database);
  const { newHostUri, deafen, guest } = rig;
  const stage: Stage = {
    call,
    imageUrl: images.url,
    newHostUri,
    deafen,
    guestSpec: guest.spec,
    takesDisks: guest.takesDisks,
  };
  const field: Field = { database, dataDir, rig, stage };
  const imageIds = [
    await uploadImage(service.url, DISK_IMAGE, "disk", diskContent()),
    await uploadImage(service.url, KERNEL_IMAGE, "kernel", guest.kernel(KERNEL_IMAGE)),
  ];
  const register = ({ name, registration }: Rig["hosts"][number]) =>
    call.done({ method: "POST", path: "/v1/hosts", body: { name, ...registration } });
  await Promise.all(rig.hosts.map(register));
  if (rig.makesNetworks) await call.make("/v1/networks", CAMPAIGN_NETWORK);
  // That images are brought is an operation of its own, met by its own scene: creates find them there.
  for (const image of imageIds) {
    const bring = ({ name }: Rig["hosts"][number]) =>
      call.done({ method: "POST", path: `/v1/hosts/${name}/images`, body: { image, pool: POOL } });
    await Promise.all(rig.hosts.map(bring));
  }
  const effects = new Map<string, Effect>();
  let rounds = 0;
  return {
    async rehearse(scenes) {
      const round = rounds++;
      const rehearsals = scenes.map(async (scene, index) => {
        effects.set(scene, await rehearseOne(field, scene, placeOf(rig, round, index)));
      });
      await Promise.all(rehearsals);
      await clear(field);
    },
    async strike(cells) {
      const round = rounds++;
      const acts = cells.map((cell, index): Act => ({ cell, place: placeOf(rig, round, index) }));
      await Promise.all(acts.map(({ cell, place }) => sceneOf(cell.scene).prepare(field.stage, place)));
      const killed = await killAt(service, field, acts);
      service = await start();
      if ("missing" in killed) throw new Error(killed.missing);
      const wrong = await verdictOn(field, acts, killed, effects);
      await settle(field);
      await clear(field);
      if (wrong.length > 0) throw new Error(wrong.join("\n"));
    },
    async stop() {
      await service.kill();
      images.close();
      await rig.close();
      await database.drop();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

function placeOf(rig: Rig, round: number, index: number): Place {
  return { name: `n${round}-${index}`, host: rig.hosts[index % rig.hosts.length]?.name ?? "" };
}

/** What the clients know of the service that was killed, and what stood where in it. */
export interface Killed {
  readonly held: CrashService["held"];
  /** The operation that each request was told of, in the order of the acts; null: it got no answer. */
  readonly answered: readonly (string | null)[];
}

/** Asks for all operations, waits until each stands at its point, and kills; kills too where one never comes there. */
async function killAt(
  service: CrashService,
  field: Field,
  acts: readonly Act[],
): Promise<Killed | { readonly missing: string }> {
  const { stage } = field;
  const unclaimed = acts.filter(({ cell }) => cell.point === "claim.before");
  await service.arm(acts.map(({ cell }) => cell));
  // A worker that takes nothing any more comes first; then what it does not take is asked for, and waits.
  await untilHeld(service, unclaimed);
  const requests = acts.map(({ cell, place }) =>
    stage.call.ask(sceneOf(cell.scene).request(stage, place), place.name).catch(() => null),
  );
  const missing = await untilHeld(service, acts);
  if (missing.length === 0 && unclaimed.length > 0) await Promise.all(requests);
  const underWay = missing.length === 0 ? [] : await unfinished(field);
  await service.kill();
  const answered = await Promise.all(requests);
  if (missing.length === 0) return { held: service.held, answered };
  return { missing: [`never came to: ${missing.join("; ")}`, ...underWay].join("\n") };
}

/** Returns the cells to whose points nothing came in time. */
async function untilHeld(service: CrashService, acts: readonly Act[]): Promise<string[]> {
  const until = performance.now() + HELD_LIMIT_MS;
  for (;;) {
    const missing = acts.flatMap(({ cell }) => (service.held.has(cell.id) ? [] : [cell.id]));
    if (missing.length === 0 || performance.now() > until) return missing;
    await sleep(20);
  }
}

/** What is under way and where it is, for the one who has to find out why. */
async function unfinished({ database: { db }, dataDir }: Field): Promise<string[]> {
  const operations = await db.operation.findMany({ where: { endedAt: null }, include: { steps: true } });
  const log = await readFile(join(dataDir, "service.log"), "utf8");
  return [
    ...operations.map(({ id, kind, state, token, notBefore, waitReason, steps }) =>
      JSON.stringify({ id, kind, state, token, notBefore, waitReason, steps }),
    ),
    ...log.split("\n").slice(-40),
  ];
}

async function rehearseOne(field: Field, scene: string, place: Place): Promise<Effect> {
  const { stage } = field;
  await sceneOf(scene).prepare(stage, place);
  const vmId = await vmIdOf(field, place.name);
  const before = await powerOf(field, vmId);
  await stage.call.done(sceneOf(scene).request(stage, place));
  return { before, after: await powerOf(field, vmId ?? (await vmIdOf(field, place.name))) };
}

/** Waits until there is nothing to complain of. */
async function settle({ database, rig, dataDir }: Field): Promise<void> {
  const until = performance.now() + SETTLE_LIMIT_MS;
  for (;;) {
    const complaints = await complaintsOf(database.db, await rig.world(), { dataDir, workers: 1 });
    if (complaints.length === 0) return;
    if (performance.now() > until) throw new Error(complaints.join("\n"));
    await sleep(100);
  }
}

/** Deletes what the acts made: every lane must be free for it, and nothing may be left over. */
async function clear(field: Field): Promise<void> {
  const { database, stage, rig } = field;
  const { db } = database;
  const vms = await db.vm.findMany({ select: { id: true } });
  await Promise.all(vms.map(({ id }) => stage.call.done({ method: "DELETE", path: `/v1/vms/${id}` })));
  const free = await db.volume.findMany({ where: { vmId: null }, select: { id: true } });
  await Promise.all(free.map(({ id }) => stage.call.done({ method: "DELETE", path: `/v1/volumes/${id}` })));
  const images = await db.image.findMany({ where: { name: { notIn: [DISK_IMAGE, KERNEL_IMAGE] } } });
  for (const { id } of images) await stage.call.remove(`/v1/images/${id}`);
  const networks = await db.network.findMany({ where: { name: { not: CAMPAIGN_NETWORK.name } } });
  await Promise.all(
    networks.map(({ id }) => stage.call.done({ method: "DELETE", path: `/v1/networks/${id}` })),
  );
  const hosts = await db.host.findMany({ where: { name: { notIn: rig.hosts.map(({ name }) => name) } } });
  for (const { id } of hosts) await stage.call.remove(`/v1/hosts/${id}`);
  await settle(field);
  const kept = await db.network.findMany({ select: { id: true } });
  const { domains, volumes, consoleLogs, networks: made = [], leases = [] } = await rig.world();
  const copies = new Set((await db.hostImage.findMany({ select: { name: true } })).map(({ name }) => name));
  const others = volumes.filter((name) => !copies.has(name));
  const foreign = made.filter((uuid) => kept.every(({ id }) => id !== uuid));
  const left = [...domains.keys(), ...others, ...consoleLogs, ...foreign, ...leases];
  if (left.length > 0) throw new Error(`left on the hosts after everything was deleted: ${left.join(", ")}`);
}
