import type { Sql, Tx } from "../db/client.ts";
import { uniqueViolation } from "../db/database-errors.ts";
import type { KeysetField } from "../db/keyset.ts";
import { appendEvent, type NewEvent } from "../events/event-store.ts";
import type { ProjectRef } from "../http/auth.ts";
import { type IfMatch, requireMatch } from "../http/etag.ts";
import { type LabelRequirement, Labels, patchLabels } from "../http/labels.ts";
import { type PageRequest, pageWindow, parseOrderBy, toPage } from "../http/pagination.ts";
import { timestamp } from "../http/schemas.ts";
import { DroverError } from "../lib/errors.ts";
import { newId, type SshKeyId } from "../lib/ids.ts";
import { parsePublicKey, publicKeyLine } from "./parse-public-key.ts";
import type { CreateSshKey, PatchSshKey, SshKey } from "./ssh-key-schemas.ts";
import {
  deleteSshKeyRow,
  findSshKey,
  insertSshKey,
  listSshKeys,
  lockSshKey,
  type SshKeyFilter,
  type SshKeyRecord,
  updateSshKeyLabels,
} from "./ssh-key-store.ts";

/** Keeps a public key. Throws `name_taken`, `invalid_request`. */
export async function createSshKey(tx: Tx, project: ProjectRef, body: CreateSshKey): Promise<SshKey> {
  const parsed = parsePublicKey(body.publicKey);
  if (!parsed.ok) throw wrong("/publicKey", parsed.reason);
  const { name, labels } = body;
  const row = await insertSshKey(tx, {
    ...{ id: newId<SshKeyId>(), projectId: project.id, name, labels },
    ...parsed.key,
  }).catch((error: unknown) => {
    if (uniqueViolation(error) === null) throw error;
    const message = `There is an ssh key "${name}" already. Choose another name, or delete that key first.`;
    throw new DroverError("name_taken", message, { cause: error });
  });
  await appendEvent(tx, sshKeyEvent("sshKey.created", row));
  return toSshKey(row, project);
}

/** Throws `not_found`. */
export async function readSshKey(db: Sql, project: ProjectRef, idOrName: string): Promise<SshKey> {
  return toSshKey(await required(findSshKey(db, project.id, idOrName), idOrName), project);
}

export interface ListRequest extends PageRequest {
  readonly name?: SshKeyFilter["name"];
  readonly fingerprint?: SshKeyFilter["fingerprint"];
  readonly labelSelector?: readonly LabelRequirement[] | undefined;
  readonly orderBy: KeysetField | `-${KeysetField}`;
}

export async function pageOfSshKeys(
  db: Sql,
  project: ProjectRef,
  request: ListRequest,
): Promise<{ items: SshKey[]; nextPageToken?: string }> {
  const { name, fingerprint, labelSelector: labels, orderBy } = request;
  const filter = { name, fingerprint, labels };
  const binding = { list: `ssh-keys/${project.id}`, orderBy, filters: filter };
  const { after, limit } = pageWindow(binding, request);
  const order = parseOrderBy<KeysetField>(orderBy);
  const from = after === null ? null : { value: String(after.value), id: after.id };
  const rows = await listSshKeys(db, project.id, filter, order, { after: from, limit });
  return toPage(
    binding,
    request,
    rows,
    (row) => ({ value: order.field === "name" ? row.name : row.createdAt.toISOString(), id: row.id }),
    (row) => toSshKey(row, project),
  );
}

/** Changes labels. Throws `not_found`, `precondition_failed`, `invalid_request` for too many labels. */
export async function patchSshKey(
  tx: Tx,
  project: ProjectRef,
  idOrName: string,
  patch: PatchSshKey,
  ifMatch: IfMatch | null,
): Promise<SshKey> {
  const row = await required(lockSshKey(tx, project.id, idOrName), idOrName);
  requireMatch(ifMatch, row.generation);
  if (patch.labels === undefined || Object.keys(patch.labels).length === 0) return toSshKey(row, project);
  const labels = Labels.safeParse(patchLabels(row.labels, patch.labels));
  if (!labels.success) throw wrong("/labels", labels.error.issues[0]?.message ?? "not valid");
  const changed = await updateSshKeyLabels(tx, row.id, labels.data);
  await appendEvent(tx, sshKeyEvent("sshKey.updated", changed));
  return toSshKey(changed, project);
}

/** Forgets a key. VMs that were made with it keep letting it in. Throws `not_found`, `precondition_failed`. */
export async function deleteSshKey(
  tx: Tx,
  project: ProjectRef,
  idOrName: string,
  ifMatch: IfMatch | null,
): Promise<void> {
  const row = await required(lockSshKey(tx, project.id, idOrName), idOrName);
  requireMatch(ifMatch, row.generation);
  await deleteSshKeyRow(tx, row.id);
  await appendEvent(tx, sshKeyEvent("sshKey.deleted", row));
}

async function required(found: Promise<SshKeyRecord | null>, idOrName: string): Promise<SshKeyRecord> {
  const row = await found;
  if (row !== null) return row;
  throw new DroverError(
    "not_found",
    `There is no ssh key "${idOrName}" in this project. List them with GET /v1/ssh-keys.`,
  );
}

function toSshKey(row: SshKeyRecord, project: ProjectRef): SshKey {
  return {
    id: row.id,
    name: row.name,
    project: project.name,
    labels: { ...row.labels },
    generation: row.generation,
    createdAt: timestamp(row.createdAt),
    updatedAt: timestamp(row.updatedAt),
    type: row.type,
    fingerprint: row.fingerprint,
    publicKey: publicKeyLine(row),
    comment: row.comment,
  };
}

function sshKeyEvent(
  type: "sshKey.created" | "sshKey.updated" | "sshKey.deleted",
  { id, name, projectId, fingerprint }: SshKeyRecord,
): NewEvent {
  return { type, subject: { kind: "sshKey", id, name }, projectId, data: { fingerprint } };
}

function wrong(pointer: string, message: string): DroverError {
  return new DroverError("invalid_request", `The request is not valid: ${pointer}: ${message}.`, {
    violations: [{ pointer, message }],
  });
}
