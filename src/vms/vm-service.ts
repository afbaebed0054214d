import { foreignKeyViolation, uniqueViolation } from "../db/database-errors.ts";
import { sentTogether } from "../db/sql.ts";
import type { Tx } from "../db/transaction.ts";
import { findHost } from "../hosts/host-store.ts";
import { bootCapability, type DeclaredGuestType } from "../hypervisors/capabilities.ts";
import type { Capability } from "../hypervisors/hypervisor.ts";
import type { CachedContent } from "../image-cache/host-image.ts";
import { bringContents } from "../image-cache/image-cache.ts";
import { DroverError } from "../lib/errors.ts";
import {
  asId,
  type HostId,
  type HostImageId,
  type InstallationId,
  newId,
  type OperationId,
  type VmId,
  type VolumeId,
} from "../lib/ids.ts";
import type { SecretBox } from "../lib/secret-box.ts";
import type { Subject, Target } from "../operations/operation-kind.ts";
import type { KindRegistry } from "../operations/operation-kinds.ts";
import { lockSubjects } from "../operations/operation-lanes.ts";
import { enqueue } from "../operations/operation-queue.ts";
import { isDiskRole } from "../volumes/volume-record.ts";
import { type PlannedSeed, planSeed } from "./cloud-init/plan-seed.ts";
import { insertVm, type NewVmParts } from "./new-vm-store.ts";
import { memoryWithOverhead, type Placed } from "./placement.ts";
import { createPlacementSnapshots, type PlacementSnapshots } from "./placement-snapshot.ts";
import { requireDeclared } from "./vm-capability.ts";
import { type PlannedVolume, planVolumes, wrong } from "./vm-images.ts";
import type { NicRow } from "./vm-nic-store.ts";
import {
  networkSubjects,
  networkWishes,
  nicSpecOf,
  type PlannedNic,
  planNics,
  reserveNics,
} from "./vm-nics.ts";
import { placeVm } from "./vm-placement.ts";
import { domainNameOf, SEED_ROLE, type VmSpec, volumeNameOf } from "./vm-record.ts";
import type { Queued, VmRequest } from "./vm-request.ts";
import { type CreateVmBody, completed, type NewVm } from "./vm-schemas.ts";

export interface CreateVmDeps {
  readonly kinds: KindRegistry;
  /** Seals what cloud-init is told. */
  readonly secretBox: SecretBox;
  /** Stands in the names of volumes. */
  readonly installationId: InstallationId;
  /** What the copies of images in a host's pool may take. */
  readonly imageCacheBytes: number;
}

/** What a create needs of its process. */
export interface Creating {
  /** What the drivers declare. */
  readonly declared: readonly DeclaredGuestType[];
  readonly snapshots?: PlacementSnapshots | undefined;
}

/**
 * Makes a VM in the caller's transaction: chooses its host, reserves there, writes its rows and queues `vm.create`.
 * Throws DroverError: `capability_unsupported` for what no driver declares, `invalid_request`, `image_not_ready`,
 * `no_placement`, `name_taken`.
 */
export async function createVm(
  tx: Tx,
  { kinds, secretBox, installationId, imageCacheBytes }: CreateVmDeps,
  request: VmRequest,
  asked: CreateVmBody,
  { declared, snapshots = createPlacementSnapshots() }: Creating,
): Promise<Queued<VmId>> {
  const id = newId<VmId>();
  const { projectId } = request;
  const body = completed(asked);
  const nics = await planNics(
    tx,
    projectId,
    body.spec.nics.map((nic, index) => ({ nic: nicSpecOf(nic), pointer: `/spec/nics/${index}` })),
  );
  const needs = {
    hypervisor: body.spec.hypervisor ?? null,
    guestType: body.spec.guestType ?? null,
    capabilities: wishesOf(body.spec, nics),
  };
  requireDeclared(declared, needs);
  const seed = await planSeed(tx, secretBox, projectId, { id, name: body.name }, body.spec.cloudInit);
  const planned = [...(await planVolumes(tx, projectId, body.spec)), ...seedVolume(seed)];
  const memoryMib = memoryWithOverhead(body.spec.memoryMib);
  const lanes = networkSubjects(nics);
  if (lanes.length > 0) await lockSubjects(tx, lanes);
  const wanted = await networkWishes(tx, nics);
  const wish = {
    ...needs,
    cpuCount: body.spec.cpu.count,
    memoryMib,
    networks: wanted.networks,
    managedNetworks: wanted.managed,
    // A qcow2 volume takes room as it is written; a raw one and what is uploaded takes it at once.
    volumeBytes: planned.reduce(
      (sum, { imageId, format, capacityBytes }) =>
        sum + (imageId === null && format === "qcow2" ? 0 : capacityBytes),
      0,
    ),
    wholeBytes: planned.reduce((sum, { capacityBytes }) => sum + capacityBytes, 0),
    needsFiles: "kernel" in body.spec.boot,
    pool: body.spec.placement?.pool ?? null,
    hostId: await wishedHost(tx, body.spec),
  };
  const placed = await placeVm(tx, wish, snapshots);
  const volumes = placed.poolType === "dir" ? planned : planned.map(asDevice);
  const copies = await copiesFor(tx, { kinds, limitBytes: imageCacheBytes }, request, placed, volumes);
  // The host's row is locked from here on: what is left is sent together, and nothing of it waits for an answer.
  const operationId = newId<OperationId>();
  const { hypervisor } = placed;
  const nicRows = await reserveNics(tx, nics, { id: asId<HostId>(placed.hostId), hypervisor });
  const { subjects, ...queued } = creation(id, body, volumes, placed);
  const kind = kinds.get("vm.create");
  await sentTogether(
    writeVm(
      tx,
      request,
      { id, operationId },
      body,
      { volumes, seed, nics: nicRows, installationId, copies: copies.ids },
      placed,
      memoryMib,
    ),
    enqueue(
      tx,
      {
        ...{ ...request, ...queued, id: operationId, kind },
        subjects: [...subjects, ...lanes, ...copies.subjects],
        input: { ...queued.input, networks: lanes.length > 0 },
      },
      kinds,
    ),
  );
  return { id, operationId };
}

interface Copies {
  /** By the content's digest and format. */
  readonly ids: ReadonlyMap<string, HostImageId>;
  readonly subjects: readonly Subject[];
}

/** The copies on the host that the volumes are made of; they are brought first where they are not there. */
async function copiesFor(
  tx: Tx,
  cache: { readonly kinds: KindRegistry; readonly limitBytes: number },
  request: VmRequest,
  { hostId, pool }: Placed,
  volumes: readonly PlannedVolume[],
): Promise<Copies> {
  const contents = new Map(
    volumes.flatMap(({ content }) => (content === null ? [] : [[keyOf(content), content]])),
  );
  const place = { hostId: asId<HostId>(hostId), pool };
  const brought = await bringContents(tx, cache, request, place, [...contents.values()]);
  if (brought === null) return { ids: new Map(), subjects: [] };
  const ids = [...contents.keys()].flatMap((key, index) => {
    const id = brought.ids[index];
    return id === undefined ? [] : [[key, id] as const];
  });
  return { ids: new Map(ids), subjects: brought.subjects };
}

function keyOf({ sha256, format }: CachedContent): string {
  return `${format} ${sha256}`;
}

/** A volume that is no file holds a disk as the guest sees it, and nothing around that: it is not made of a copy. */
function asDevice(volume: PlannedVolume): PlannedVolume {
  return { ...volume, format: "raw", content: null };
}

function seedVolume(seed: PlannedSeed | null): PlannedVolume[] {
  if (seed === null) return [];
  const { sizeBytes: capacityBytes } = seed;
  const empty = { imageId: null, content: null, deletePolicy: "delete" as const };
  return [{ role: SEED_ROLE, format: "raw", capacityBytes, ...empty }];
}

/** What is queued for a new VM. */
function creation(id: VmId, body: NewVm, volumes: readonly PlannedVolume[], placed: Placed) {
  const subjects: Subject[] = [{ kind: "vm", id, mode: "exclusive" }];
  const targets: Target[] = [{ kind: "vm", id, name: body.name }];
  return {
    input: {
      vmId: id,
      start: body.spec.runPolicy === "running",
      bootFiles: volumes.some(({ role }) => !isDiskRole(role)),
      disks: volumes.some(({ role }) => isDiskRole(role)),
    },
    hostId: asId<HostId>(placed.hostId),
    hosts: [placed.hostName],
    subjects,
    targets,
  };
}

/** What the host must be able to do for this VM. */
function wishesOf({ boot, disks, cloudInit }: NewVm["spec"], nics: readonly PlannedNic[]): Capability[] {
  const firmware = "firmware" in boot ? boot.firmware : null;
  const makesNetworks = nics.some(({ network }) => network !== null && network.kind !== "bridged");
  const hasVolumes = firmware === null || disks.length > 0 || cloudInit !== undefined;
  return [
    ...(["start", bootCapability(firmware)] as const),
    ...(hasVolumes ? (["volumes"] as const) : []),
    ...(makesNetworks ? (["networks"] as const) : []),
  ];
}

async function wishedHost(tx: Tx, spec: NewVm["spec"]): Promise<string | null> {
  const name = spec.placement?.host;
  if (name === undefined) return null;
  const host = await findHost(tx, name);
  if (host === null) throw wrong("/spec/placement/host", `there is no host "${name}"`);
  return host.id;
}

async function writeVm(
  tx: Tx,
  { projectId }: VmRequest,
  { id, operationId }: Queued<VmId>,
  body: NewVm,
  {
    volumes,
    seed,
    nics,
    installationId,
    copies,
  }: {
    readonly volumes: readonly PlannedVolume[];
    readonly seed: PlannedSeed | null;
    readonly nics: readonly NicRow[];
    readonly installationId: InstallationId;
    readonly copies: Copies["ids"];
  },
  placed: Placed,
  memoryMib: number,
): Promise<void> {
  const { name, labels } = body;
  const hostId = asId<HostId>(placed.hostId);
  const { hypervisor, guestType, pool } = placed;
  const spec = specOf(body.spec, seed);
  const vm = { id, projectId, name, labels, spec, hostId, hypervisor, guestType, pool };
  const made = volumes.map((volume) => ({ ...volume, id: newId<VolumeId>() }));
  const parts: NewVmParts = {
    vm: { ...vm, domainName: domainNameOf({ id, name }) },
    ...{ hostName: placed.hostName, operationId },
    reservation: { cpuCount: body.spec.cpu.count, memoryMib },
    volumes: made.map(({ id: volumeId, role, format, capacityBytes, deletePolicy }, position) => {
      return {
        id: volumeId,
        name: volumeNameOf(installationId, id, role, format),
        role,
        position,
        format,
        capacityBytes,
        deletePolicy,
      };
    }),
    copies: made.flatMap(({ id: volumeId, content }) => {
      const hostImageId = content === null ? undefined : copies.get(keyOf(content));
      return hostImageId === undefined ? [] : [{ volumeId, hostImageId }];
    }),
    images: volumes.flatMap(({ role, imageId }) => (imageId === null ? [] : [{ role, imageId }])),
    seed: seed?.sealed ?? null,
    nics,
  };
  await refuseTaken(refuseGone(insertVm(tx, parts)), body);
}

/**
 * The spec as it is kept: what was asked, with the defaults, without what is undefined. What cloud-init is told may hold
 * secrets, and is kept apart.
 */
function specOf({ cloudInit: _, ...open }: NewVm["spec"], seed: PlannedSeed | null): VmSpec {
  const spec = JSON.parse(JSON.stringify(open)) as Omit<VmSpec, "cloudInit">;
  return seed === null ? spec : { ...spec, cloudInit: seed.shown };
}

/** An image may be deleted between the look at it and its use. */
async function refuseGone(written: Promise<void>): Promise<void> {
  try {
    await written;
  } catch (error) {
    if (foreignKeyViolation(error) === null) throw error;
    throw new DroverError(
      "conflict",
      "An image of this VM was just deleted. List the images with GET /v1/images.",
      { cause: error },
    );
  }
}

/** Turns what is taken already into its own error. */
async function refuseTaken(written: Promise<void>, body: NewVm): Promise<void> {
  try {
    await written;
  } catch (error) {
    const key = uniqueViolation(error);
    if (key === null) throw error;
    if (key.includes("mac_address")) {
      throw new DroverError(
        "already_exists",
        "A MAC address of this VM belongs to another VM. Leave it out, and one is made.",
        { cause: error },
      );
    }
    throw new DroverError("name_taken", `A VM named "${body.name}" exists already. Choose another name.`, {
      cause: error,
    });
  }
}
