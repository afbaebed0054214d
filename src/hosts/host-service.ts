import { foreignKeyViolation, uniqueViolation } from "../db/database-errors.ts";
import type { Sql, Tx } from "../db/transaction.ts";
import { appendEvent } from "../events/event-store.ts";
import { type IfMatch, requireMatch } from "../http/etag.ts";
import { Labels, patchLabels } from "../http/labels.ts";
import {
  type DriverName,
  type HostCredentials,
  type Hypervisor,
  HypervisorError,
} from "../hypervisors/hypervisor.ts";
import { DroverError } from "../lib/errors.ts";
import { type HostId, type InstallationId, newId, type OperationId } from "../lib/ids.ts";
import type { SecretBox } from "../lib/secret-box.ts";
import { endLocked, lockUnfinished } from "../operations/operation-abandon.ts";
import { operationError } from "../operations/operation-errors.ts";
import type { KindRegistry } from "../operations/operation-kinds.ts";
import { enqueue } from "../operations/operation-queue.ts";
import { connectHost, type DriverForUri } from "./host-connect.ts";
import { checked, HostFactsSchema } from "./host-facts.ts";
import type { HostRecord } from "./host-record.ts";
import type { Credentials, PatchHostBody, RegisterHostBody } from "./host-schemas.ts";
import {
  deleteHostRow,
  findHost,
  hostImageIdsOn,
  hostOfMachine,
  insertHost,
  lockHost,
  setSchedulable,
  updateHostSettings,
} from "./host-store.ts";

export interface HostServiceDeps {
  readonly kinds: KindRegistry;
  readonly secretBox: SecretBox;
  readonly installationId: InstallationId;
  readonly driverForUri: DriverForUri;
  /** What a URI says, or what is wrong with it; from the registry of drivers. */
  readonly parseUri: (
    uri: string,
  ) =>
    | { readonly driver: DriverName; readonly hypervisor: Hypervisor; readonly uri: string }
    | { readonly error: string };
}

/** What a first look at a host found. */
export interface FirstLook {
  readonly driver: DriverName;
  readonly hypervisor: Hypervisor;
  /** Canonical. */
  readonly uri: string;
  /** Null: it did not answer, or tells none. */
  readonly hostUuid: string | null;
}

const FIRST_LOOK_MS = 8_000;

/**
 * Checks a host's URI and looks at it once. A host that does not answer can be registered all the same; one whose key
 * is unknown or that refuses the credentials cannot. Throws DroverError `invalid_request`, `host_key_unknown`,
 * `host_unreachable` (the credentials were refused).
 */
export async function lookAtHost(
  deps: HostServiceDeps,
  body: RegisterHostBody,
  signal: AbortSignal,
): Promise<FirstLook> {
  const parsed = deps.parseUri(body.uri);
  if ("error" in parsed) {
    throw new DroverError("invalid_request", `The URI cannot be used: ${parsed.error}.`, {
      violations: [{ pointer: "/uri", message: parsed.error }],
    });
  }
  try {
    const access = {
      uri: parsed.uri,
      credentials: credentialsOf(body.credentials),
      accelerator: body.accelerator,
    };
    const host = await connectHost(deps.driverForUri, access, deps.installationId, {
      signal,
      timeoutMs: FIRST_LOOK_MS,
    });
    try {
      const call = {
        signal: AbortSignal.any([signal, AbortSignal.timeout(FIRST_LOOK_MS)]),
        timeoutMs: FIRST_LOOK_MS,
        beforeSend: () => undefined,
      };
      const { hostUuid } = checked(HostFactsSchema, await host.probe(call), "facts");
      return { ...parsed, hostUuid };
    } finally {
      await host.close();
    }
  } catch (error) {
    if (!(error instanceof HypervisorError)) throw error;
    if (
      error.reason === "host-key-unknown" ||
      error.reason === "authentication" ||
      error.reason === "invalid-spec"
    ) {
      throw refusedByHost(error);
    }
    return { ...parsed, hostUuid: null };
  }
}

/** What the client must change before the host lets us in. */
function refusedByHost(error: HypervisorError): DroverError {
  if (error.reason === "host-key-unknown") return operationError(error);
  return new DroverError("invalid_request", `The host refused the connection: ${error.message}.`, {
    violations: [{ pointer: "/credentials", message: "the host did not accept them" }],
    ...(error.details === undefined ? {} : { details: error.details }),
    cause: error,
  });
}

function credentialsOf(given: Credentials | undefined): HostCredentials {
  if (given === undefined) return {};
  const { ssh, tls } = given;
  return {
    ...(ssh === undefined
      ? {}
      : {
          ssh: {
            privateKey: ssh.privateKey,
            ...(ssh.knownHosts === undefined ? {} : { knownHosts: ssh.knownHosts }),
          },
        }),
    ...(tls === undefined ? {} : { tls }),
  };
}

function sealed(deps: HostServiceDeps, given: Credentials | undefined): Uint8Array<ArrayBuffer> | null {
  return given === undefined ? null : deps.secretBox.seal(JSON.stringify(credentialsOf(given)));
}

export interface HostRequest {
  readonly actor: string;
  readonly requestId: string;
}

/** Writes the host and queues its first probe. Throws `name_taken`, `already_exists` for a machine registered before. */
export async function registerHost(
  tx: Tx,
  deps: HostServiceDeps,
  request: HostRequest,
  body: RegisterHostBody,
  look: FirstLook,
): Promise<{ readonly id: HostId; readonly operationId: OperationId }> {
  const id = newId<HostId>();
  const { name, labels, accelerator, reserve, overcommit } = body;
  await refuseTwin(tx, look.hostUuid);
  try {
    await insertHost(tx, {
      ...{ id, name, labels, accelerator, ...look },
      credentials: sealed(deps, body.credentials),
      ...{ reserveCpuCount: reserve.cpuCount, reserveMemoryMib: reserve.memoryMib },
      ...{ cpuOvercommit: overcommit.cpu, memoryOvercommit: overcommit.memory },
    });
  } catch (error) {
    throw taken(error, name);
  }
  const operation = await enqueueHost(tx, deps, request, { id, name }, "host.register");
  await tellHost(tx, "host.registered", { id, name }, operation);
  return { id, operationId: operation };
}

/** Asked first, so that the refusal can name the other host; the unique index is what holds. */
async function refuseTwin(tx: Tx, hostUuid: string | null): Promise<void> {
  const twin = hostUuid === null ? null : await hostOfMachine(tx, hostUuid);
  if (twin !== null) throw registeredAlready(`as host "${twin}"`);
}

function registeredAlready(how: string, cause?: unknown): DroverError {
  const message = `This machine is registered already ${how}: use that host, or delete it first.`;
  return new DroverError("already_exists", message, { cause });
}

function taken(error: unknown, name: string): unknown {
  const key = uniqueViolation(error);
  if (key === null) return error;
  if (key.includes("host_uuid")) return registeredAlready("under another name", error);
  return new DroverError("name_taken", `A host named "${name}" exists already. Choose another name.`, {
    cause: error,
  });
}

async function enqueueHost(
  tx: Tx,
  deps: HostServiceDeps,
  request: HostRequest,
  host: { readonly id: HostId; readonly name: string },
  kind: "host.register" | "host.refresh",
): Promise<OperationId> {
  const operation = await enqueue(
    tx,
    {
      kind: deps.kinds.get(kind),
      input: { hostId: host.id },
      subjects: [{ kind: "host", id: host.id, mode: "exclusive" }],
      targets: [{ kind: "host", id: host.id, name: host.name }],
      hosts: [host.name],
      projectId: null,
      ...request,
    },
    deps.kinds,
  );
  return operation.id;
}

async function tellHost(
  tx: Tx,
  type: string,
  { id, name }: { readonly id: HostId; readonly name: string },
  operationId: OperationId | null = null,
): Promise<void> {
  await appendEvent(tx, { type, subject: { kind: "host", id, name }, projectId: null, operationId });
}

/** Throws `not_found`. */
export async function requireHost(db: Sql, idOrName: string): Promise<HostRecord> {
  const host = await findHost(db, idOrName);
  if (host !== null) return host;
  throw noSuchHost(idOrName);
}

function noSuchHost(idOrName: string): DroverError {
  return new DroverError("not_found", `There is no host "${idOrName}". List them with GET /v1/hosts.`);
}

async function requireLocked(tx: Tx, idOrName: string, ifMatch: IfMatch | null): Promise<HostRecord> {
  const host = await lockHost(tx, idOrName);
  if (host === null) throw noSuchHost(idOrName);
  requireMatch(ifMatch, host.generation);
  return host;
}

/** Queues a fresh probe and inventory. */
export async function refreshHost(
  tx: Tx,
  deps: HostServiceDeps,
  request: HostRequest,
  idOrName: string,
): Promise<{ readonly id: HostId; readonly operationId: OperationId }> {
  const host = await requireHost(tx, idOrName);
  return { id: host.id, operationId: await enqueueHost(tx, deps, request, host, "host.refresh") };
}

/** Cordons a host (false) or takes it back into placement. */
export async function scheduleHost(
  tx: Tx,
  idOrName: string,
  schedulable: boolean,
  ifMatch: IfMatch | null,
): Promise<HostId> {
  const host = await requireLocked(tx, idOrName, ifMatch);
  if (host.schedulable !== schedulable) {
    await setSchedulable(tx, host.id, schedulable);
    await tellHost(tx, schedulable ? "host.uncordoned" : "host.cordoned", host);
  }
  return host.id;
}

/** Applies a merge patch. Throws `not_found`, `precondition_failed`, `invalid_request` for too many labels. */
export async function patchHost(
  tx: Tx,
  deps: HostServiceDeps,
  idOrName: string,
  patch: PatchHostBody,
  ifMatch: IfMatch | null,
): Promise<HostId> {
  const host = await requireLocked(tx, idOrName, ifMatch);
  const labels = Labels.safeParse(patchLabels(host.labels, patch.labels ?? {}));
  if (!labels.success) {
    const message = labels.error.issues[0]?.message ?? "are wrong";
    throw new DroverError("invalid_request", `/labels: ${message}.`, {
      violations: [{ pointer: "/labels", message }],
    });
  }
  const credentials = sealed(deps, patch.credentials);
  const { policy } = host;
  await updateHostSettings(tx, host.id, {
    labels: labels.data,
    accelerator: patch.accelerator ?? host.accelerator,
    reserveCpuCount: patch.reserve?.cpuCount ?? policy.reserveCpuCount,
    reserveMemoryMib: patch.reserve?.memoryMib ?? policy.reserveMemoryMib,
    cpuOvercommit: patch.overcommit?.cpu ?? policy.cpuOvercommit,
    memoryOvercommit: patch.overcommit?.memory ?? policy.memoryOvercommit,
    ...(credentials === null ? {} : { credentials }),
  });
  await tellHost(tx, "host.updated", host);
  return host.id;
}

/**
 * Takes a host out of the inventory, and ends what is queued for it; nothing on it is touched. Throws `not_found`,
 * `precondition_failed`, and `in_use` while VMs or volumes are on it.
 */
export async function deleteHost(
  tx: Tx,
  kinds: KindRegistry,
  idOrName: string,
  ifMatch: IfMatch | null,
): Promise<void> {
  const { id } = await requireHost(tx, idOrName);
  const unfinished = [
    ...(await lockUnfinished(tx, "host", [id])),
    ...(await lockUnfinished(tx, "hostImage", await hostImageIdsOn(tx, id))),
  ];
  const host = await requireLocked(tx, id, ifMatch);
  const why = new DroverError("cancelled", `The host "${host.name}" was deleted.`);
  await endLocked(tx, kinds, unfinished, { state: "cancelled", error: why, undone: true });
  try {
    await deleteHostRow(tx, host.id);
  } catch (error) {
    const key = foreignKeyViolation(error);
    if (key === null) throw error;
    if (key.startsWith("network_host")) {
      throw new DroverError(
        "in_use",
        `Networks are still on host "${host.name}". Take them off with DELETE /v1/networks/{network}/hosts/${host.name}, or delete them; GET /v1/hosts/${host.name}/networks shows them.`,
        { cause: error },
      );
    }
    throw new DroverError(
      "in_use",
      `VMs or volumes are still on host "${host.name}". Delete them first; if the host is dead for good, POST /v1/hosts/${host.name}/forget gives them up.`,
      { cause: error },
    );
  }
  await tellHost(tx, "host.deleted", host);
}
