import { randomBytes } from "node:crypto";
import { foreignKeyViolation, uniqueViolation } from "../db/database-errors.ts";
import { sentTogether } from "../db/sql.ts";
import type { Tx } from "../db/transaction.ts";
import { findHost } from "../hosts/host-store.ts";
import { bootCapability, type DeclaredGuestType } from "../hypervisors/capabilities.ts";
import type { Capability } from "../hypervisors/hypervisor.ts";
import { DroverError } from "../lib/errors.ts";
import { asId, type HostId, newId, type OperationId, type VmId, type VolumeId } from "../lib/ids.ts";
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
import { type CreateVmBody, completed, type NewVm } from "./vm-schemas.ts";

export interface CreateVmDeps {
  readonly kinds: KindRegistry;
  /** Seals what cloud-init is told. */
  readonly secretBox: SecretBox;
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
  { kinds, secretBox }: CreateVmDeps,
  request: VmRequest,
  asked: CreateVmBody,
  { declared, snapshots = createPlacementSnapshots() }: Creating,
): Promise<Queued<VmId>> {
  const id = newId<VmId>();
  const { projectId } = request;
  const body = completed(asked);
  const needs = {
    hypervisor: body.spec.hypervisor ?? null,
    guestType: body.spec.guestType ?? null,
    capabilities: wishesOf(body.spec),
  };
  requireDeclared(declared, needs);
  const seed = await planSeed(tx, secretBox, projectId, { id, name: body.name }, body.spec.cloudInit);
  const planned = [...(await planVolumes(tx, projectId, body.spec)), ...seedVolume(seed)];
  const memoryMib = memoryWithOverhead(body.spec.memoryMib);
  const wish = {
    ...needs,
    cpuCount: body.spec.cpu.count,
    memoryMib,
    networks: [...new Set(body.spec.nics.map(({ network }) => network))],
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
  // The host's row is locked from here on: what is left is sent together, and nothing of it waits for an answer.
  const operationId = newId<OperationId>();
  await sentTogether(
    writeVm(tx, request, { id, operationId }, body, { volumes, seed }, placed, memoryMib),
    enqueue(
      tx,
      { ...request, ...creation(id, body, volumes, placed), id: operationId, kind: kinds.get("vm.create") },
      kinds,
    ),
  );
  return { id, operationId };
}

/** A volume that is no file holds a disk as the guest sees it, and nothing around that. */
function asDevice(volume: PlannedVolume): PlannedVolume {
  return { ...volume, format: "raw" };
}

function seedVolume(seed: PlannedSeed | null): PlannedVolume[] {
  if (seed === null) return [];
  return [{ role: SEED_ROLE, format: "raw", capacityBytes: seed.sizeBytes, imageId: null }];
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
function wishesOf({ boot, disks, cloudInit }: NewVm["spec"]): Capability[] {
  const firmware = "firmware" in boot ? boot.firmware : null;
  const hasVolumes = firmware === null || disks.length > 0 || cloudInit !== undefined;
  return ["start", bootCapability(firmware), ...(hasVolumes ? ["volumes" as const] : [])];
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
  { volumes, seed }: { readonly volumes: readonly PlannedVolume[]; readonly seed: PlannedSeed | null },
  placed: Placed,
  memoryMib: number,
): Promise<void> {
  const { name, labels } = body;
  const hostId = asId<HostId>(placed.hostId);
  const { hypervisor, guestType, pool } = placed;
  const spec = specOf(body.spec, seed);
  const vm = { id, projectId, name, labels, spec, hostId, hypervisor, guestType, pool };
  const parts: NewVmParts = {
    vm: { ...vm, domainName: domainNameOf({ id, name }) },
    ...{ hostName: placed.hostName, operationId },
    reservation: { cpuCount: body.spec.cpu.count, memoryMib },
    volumes: volumes.map(({ role, format, capacityBytes }, position) => {
      return {
        id: newId<VolumeId>(),
        name: volumeNameOf(id, role, format),
        role,
        position,
        format,
        capacityBytes,
      };
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
function specOf({ cloudInit: _, ...open }: NewVm["spec"], seed: PlannedSeed | null): VmSpec {
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
