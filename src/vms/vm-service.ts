import { randomBytes } from "node:crypto";
import { foreignKeyViolation, uniqueViolation } from "../db/database-errors.ts";
import { sentTogether } from "../db/sql.ts";
import type { Tx } from "../db/transaction.ts";
import { findHost } from "../hosts/host-store.ts";
import type { DeclaredGuestType } from "../hypervisors/capabilities.ts";
import type { Capability } from "../hypervisors/hypervisor.ts";
import type { CachedContent } from "../image-cache/host-image.ts";
import { bringContents } from "../image-cache/image-cache.ts";
import { DroverError } from "../lib/errors.ts";
import {
  asId,
  type HostId,
  type HostImageId,
  newId,
  type OperationId,
  type VmId,
  type VolumeId,
} from "../lib/ids.ts";
import type { SecretBox } from "../lib/secret-box.ts";
import type { Subject, Target } from "../operations/operation-kind.ts";
import type { KindRegistry } from "../operations/operation-kinds.ts";
import { enqueue } from "../operations/operation-queue.ts";
import { type PlannedSeed, planSeed } from "./cloud-init/plan-seed.ts";
import { insertVm, type NewVmParts } from "./new-vm-store.ts";
import { memoryWithOverhead, type Placed } from "./placement.ts";
import { createPlacementSnapshots, type PlacementSnapshots } from "./placement-snapshot.ts";
import { requireDeclared } from "./vm-capability.ts";
import { type PlannedVolume, planVolumes, wrong } from "./vm-images.ts";
import { placeVm } from "./vm-placement.ts";
import { domainNameOf, isDiskRole, SEED_ROLE, type VmSpec, volumeNameOf } from "./vm-record.ts";
import type { Queued, VmRequest } from "./vm-request.ts";
import type { CreateVmBody } from "./vm-schemas.ts";

export interface CreateVmDeps {
  readonly kinds: KindRegistry;
  /** Seals what cloud-init is told. */
  readonly secretBox: SecretBox;
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
  { kinds, secretBox, imageCacheBytes }: CreateVmDeps,
  request: VmRequest,
  body: CreateVmBody,
  { declared, snapshots = createPlacementSnapshots() }: Creating,
): Promise<Queued<VmId>> {
  const id = newId<VmId>();
  const { projectId } = request;
  const asked = {
    hypervisor: body.spec.hypervisor ?? null,
    guestType: body.spec.guestType ?? null,
    capabilities: wishesOf(body.spec),
  };
  requireDeclared(declared, asked);
  const seed = await planSeed(tx, secretBox, projectId, { id, name: body.name }, body.spec.cloudInit);
  const volumes = [...(await planVolumes(tx, projectId, body.spec)), ...seedVolume(seed)];
  const memoryMib = memoryWithOverhead(body.spec.memoryMib);
  const wish = {
    ...asked,
    cpuCount: body.spec.cpu.count,
    memoryMib,
    networks: [...new Set(body.spec.nics.map(({ network }) => network))],
    // A qcow2 volume takes room as it is written; a raw one and what is uploaded takes it at once.
    volumeBytes: volumes.reduce(
      (sum, { imageId, format, capacityBytes }) =>
        sum + (imageId === null && format === "qcow2" ? 0 : capacityBytes),
      0,
    ),
    pool: body.spec.placement?.pool ?? null,
    hostId: await wishedHost(tx, body.spec),
  };
  const placed = await placeVm(tx, wish, snapshots);
  const copies = await copiesFor(tx, { kinds, limitBytes: imageCacheBytes }, request, placed, volumes);
  // The host's row is locked from here on: what is left is sent together, and nothing of it waits for an answer.
  const operationId = newId<OperationId>();
  const creating = creation(id, body, volumes, placed);
  const subjects = [...creating.subjects, ...copies.subjects];
  await sentTogether(
    writeVm(tx, request, { id, operationId }, body, { volumes, seed, copies: copies.ids }, placed, memoryMib),
    enqueue(tx, { ...request, ...creating, subjects, id: operationId, kind: kinds.get("vm.create") }, kinds),
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

function seedVolume(seed: PlannedSeed | null): PlannedVolume[] {
  if (seed === null) return [];
  return [{ role: SEED_ROLE, format: "raw", capacityBytes: seed.sizeBytes, imageId: null, content: null }];
}

/** What is queued for a new VM. */
function creation(id: VmId, body: CreateVmBody, volumes: readonly PlannedVolume[], placed: Placed) {
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
function wishesOf({ boot, disks, cloudInit }: CreateVmBody["spec"]): Capability[] {
  const hasKernel = "kernel" in boot;
  const hasVolumes = hasKernel || disks.length > 0 || cloudInit !== undefined;
  return ["start", hasKernel ? "directKernel" : "firmwareBios", ...(hasVolumes ? ["volumes" as const] : [])];
}

async function wishedHost(tx: Tx, spec: CreateVmBody["spec"]): Promise<string | null> {
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
  body: CreateVmBody,
  {
    volumes,
    seed,
    copies,
  }: {
    readonly volumes: readonly PlannedVolume[];
    readonly seed: PlannedSeed | null;
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
    volumes: made.map(({ id: volumeId, role, format, capacityBytes }, position) => {
      return {
        id: volumeId,
        name: volumeNameOf(id, role, format),
        role,
        position,
        format,
        capacityBytes,
      };
    }),
    copies: made.flatMap(({ id: volumeId, content }) => {
      const hostImageId = content === null ? undefined : copies.get(keyOf(content));
      return hostImageId === undefined ? [] : [{ volumeId, hostImageId }];
    }),
    images: volumes.flatMap(({ role, imageId }) => (imageId === null ? [] : [{ role, imageId }])),
    seed: seed?.sealed ?? null,
    nics: body.spec.nics.map(({ name: nic, network, macAddress }) => ({
      name: nic,
      network,
      macAddress: macAddress ?? newMacAddress(),
    })),
  };
  await refuseTaken(refuseGone(insertVm(tx, parts)), body);
}

/**
 * The spec as it is kept: what was asked, with the defaults, without what is undefined. What cloud-init is told may hold
 * secrets, and is kept apart.
 */
function specOf({ cloudInit: _, ...open }: CreateVmBody["spec"], seed: PlannedSeed | null): VmSpec {
  const spec = JSON.parse(JSON.stringify(open)) as Omit<VmSpec, "cloudInit">;
  return seed === null ? spec : { ...spec, cloudInit: seed.shown };
}

/** QEMU's and libvirt's own prefix for guests, and 24 random bits; a unique index refuses the rare twin. */
function newMacAddress(): string {
  return ["52", "54", "00", ...[...randomBytes(3)].map((byte) => byte.toString(16).padStart(2, "0"))].join(
    ":",
  );
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
async function refuseTaken(written: Promise<void>, body: CreateVmBody): Promise<void> {
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
