import type { Tx } from "../db/transaction.ts";
import { asId, type HostId, type HostImageId, newId, type OperationId, type ProjectId } from "../lib/ids.ts";
import type { Subject, Target } from "../operations/operation-kind.ts";
import type { KindRegistry } from "../operations/operation-kinds.ts";
import { lockSubjects } from "../operations/operation-lanes.ts";
import { enqueue } from "../operations/operation-queue.ts";
import { planRoom } from "./cache-room.ts";
import type { CachedContent, HostImage } from "./host-image.ts";
import {
  ensureHostImages,
  hostImagesOf,
  imageWithContent,
  lockHostImages,
  poolOf,
  setEvicting,
  setFilling,
  setOperation,
  touchHostImages,
  useReadyHostImages,
} from "./host-image-store.ts";

/**
 * Copies of images in the pools of hosts. A content that a pool lacks is brought by an operation of its own, once; what
 * needs it waits behind that operation, in the queue. Those that come later find the operation by the copy's row.
 */

export interface ImageCacheDeps {
  readonly kinds: KindRegistry;
  /** How much of a pool copies may take that no volume needs. */
  readonly limitBytes: number;
}

/** Who asks, for the operations that follow. */
export interface CacheRequest {
  readonly projectId: ProjectId | null;
  readonly actor: string;
  readonly requestId: string | null;
}

/** Copies that will be there when the subjects' operations have ended. */
interface AwaitedCopies {
  readonly ids: readonly HostImageId[];
  /** To be waited for: subjects of what needs the copies. */
  readonly subjects: readonly Subject[];
}

export interface BringOptions {
  /** True queues an operation for a copy that is there too, which finds nothing to do. */
  readonly evenIfReady?: boolean;
}

/**
 * Sees to it that a pool has, or gets, a copy of each content, and makes room for those that it gets. To be called with
 * the host's row locked, or for copies that exist. Null: the pool keeps no copies.
 */
export async function bringContents(
  tx: Tx,
  deps: ImageCacheDeps,
  request: CacheRequest,
  place: { readonly hostId: HostId; readonly pool: string },
  contents: readonly CachedContent[],
  options: BringOptions = {},
): Promise<AwaitedCopies | null> {
  if (contents.length === 0) return null;
  const { evenIfReady = false } = options;
  const known = evenIfReady ? null : await useReadyHostImages(tx, place, contents);
  if (known !== null) return { ids: known, subjects: [] };
  const ids = await ensureHostImages(tx, place, contents);
  if (ids === null) return null;
  return { ids, subjects: await bringCopies(tx, deps, request, place, ids, options) };
}

/** The same for copies that have their rows. Returns what is to be waited for. */
export async function bringCopies(
  tx: Tx,
  deps: ImageCacheDeps,
  request: CacheRequest,
  place: { readonly hostId: HostId; readonly pool: string },
  ids: readonly HostImageId[],
  { evenIfReady = false }: BringOptions = {},
): Promise<Subject[]> {
  const pool = await poolOf(tx, place.hostId, place.pool);
  const all = await hostImagesOf(tx, place.hostId, place.pool);
  const roomFor = (copies: readonly HostImage[]): HostImage[] => {
    const wanted = copies.filter(({ id, state }) => ids.includes(id) && needsBringing(state));
    const neededBytes = wanted.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    if (neededBytes === 0) return [];
    const others = copies.filter(({ id }) => !ids.includes(id));
    return planRoom(others, neededBytes, {
      limitBytes: deps.limitBytes,
      availableBytes: pool?.availableBytes ?? 0,
    });
  };
  // Seen without a lock: it says whose lanes to lock, and is read anew behind them.
  const guess = roomFor(all).map(({ id }) => id);
  const lanes = [...new Set([...ids, ...guess])];
  await lockSubjects(
    tx,
    lanes.map((id) => laneOf(id)),
  );
  const locked = await lockHostImages(tx, lanes);
  await touchHostImages(tx, ids);
  const others = all.filter(({ id }) => !lanes.includes(id));
  const victims = roomFor([...others, ...locked]).filter(({ id }) => guess.includes(id));
  const hostName = pool?.hostName ?? "";
  const room: Subject[] = [];
  for (const victim of victims) room.push(await evict(tx, deps.kinds, hostName, victim));
  const waits: Subject[] = [];
  for (const copy of locked.filter(({ id }) => ids.includes(id))) {
    if (needsBringing(copy.state) || (evenIfReady && copy.state === "ready"))
      waits.push(await bring(tx, deps.kinds, request, hostName, copy, room));
    else if (copy.state === "filling" && copy.operationId !== null) waits.push(endOf(copy.operationId));
  }
  return waits;
}

/**
 * Queues the removal of a copy that no volume needs. Null: it is needed by now, or on its way, or gone.
 */
export async function evictUnused(
  tx: Tx,
  { kinds }: Pick<ImageCacheDeps, "kinds">,
  id: HostImageId,
  request: CacheRequest = SYSTEM,
): Promise<OperationId | null> {
  await lockSubjects(tx, [laneOf(id)]);
  const [copy] = await lockHostImages(tx, [id]);
  if (copy === undefined || copy.uses > 0) return null;
  if (copy.state !== "ready" && copy.state !== "absent") return null;
  const pool = await poolOf(tx, copy.hostId, copy.pool);
  const subject = await evict(tx, kinds, pool?.hostName ?? "", copy, request);
  return asId<OperationId>(subject.id);
}

const SYSTEM: CacheRequest = { projectId: null, actor: "system", requestId: null };

function needsBringing(state: HostImage["state"]): boolean {
  return state === "absent" || state === "evicting";
}

/** What fills and what evicts a copy never act at once. */
function laneOf(id: HostImageId): Subject {
  return { kind: "hostImage", id, mode: "exclusive" };
}

/**
 * An operation's own lane: who shares it waits for the operation's end, and for nothing that comes to the copy later. So
 * what waits can itself ask for the copy to be brought again.
 */
function ownLane(operationId: OperationId): Subject {
  return { kind: "hostImage", id: operationId, mode: "exclusive" };
}

function endOf(operationId: OperationId): Subject {
  return { ...ownLane(operationId), mode: "shared" };
}

async function bring(
  tx: Tx,
  kinds: KindRegistry,
  request: CacheRequest,
  hostName: string,
  copy: HostImage,
  room: readonly Subject[],
): Promise<Subject> {
  const operationId = newId<OperationId>();
  const image = await imageWithContent(tx, copy.sha256);
  const targets: Target[] = [
    ...(image === null ? [] : [{ kind: "image", id: image.id, name: image.name } as const]),
    { kind: "host", id: copy.hostId, name: hostName },
  ];
  await enqueue(
    tx,
    {
      ...request,
      id: operationId,
      hostId: copy.hostId,
      kind: kinds.get("hostImage.bring"),
      input: { hostImageId: copy.id },
      subjects: [laneOf(copy.id), ownLane(operationId), ...room],
      targets,
      hosts: [hostName],
    },
    kinds,
  );
  if (copy.state === "ready") await setOperation(tx, copy.id, operationId);
  else await setFilling(tx, copy.id, operationId);
  return endOf(operationId);
}

async function evict(
  tx: Tx,
  kinds: KindRegistry,
  hostName: string,
  copy: HostImage,
  request: CacheRequest = SYSTEM,
): Promise<Subject> {
  const operationId = newId<OperationId>();
  await enqueue(
    tx,
    {
      ...request,
      id: operationId,
      hostId: copy.hostId,
      kind: kinds.get("hostImage.evict"),
      input: { hostImageId: copy.id },
      subjects: [laneOf(copy.id), ownLane(operationId)],
      targets: [{ kind: "host", id: copy.hostId, name: hostName }],
      hosts: [hostName],
    },
    kinds,
  );
  await setEvicting(tx, copy.id, operationId);
  return endOf(operationId);
}
