import { Prisma } from "../db/generated/client.ts";
import { type KeysetOrder, type KeysetPage, keysetPage } from "../db/keyset.ts";
import { type LabelRequirement, labelCondition } from "../db/label-condition.ts";
import type { Sql, Tx } from "../db/transaction.ts";
import { isUuid, type ProjectId, type SshKeyId } from "../lib/ids.ts";

/** A public key as the inventory holds it. */
export interface SshKeyRecord {
  readonly id: SshKeyId;
  readonly projectId: ProjectId;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly generation: number;
  readonly type: string;
  readonly base64: string;
  readonly comment: string;
  readonly fingerprint: string;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

const COLUMNS = Prisma.sql`id, project_id AS "projectId", name, labels, generation, type, base64, comment, fingerprint,
  created_at AS "createdAt", updated_at AS "updatedAt"`;

export type NewSshKey = Omit<SshKeyRecord, "generation" | "createdAt" | "updatedAt">;

/** A taken name is a unique violation. */
export async function insertSshKey(tx: Tx, key: NewSshKey): Promise<SshKeyRecord> {
  const { id, projectId, name, labels, type, base64, comment, fingerprint } = key;
  return written(
    await tx.$queryRaw<SshKeyRecord[]>`
      INSERT INTO ssh_key (id, project_id, name, labels, type, base64, comment, fingerprint, updated_at)
      VALUES (${id}::uuid, ${projectId}::uuid, ${name}, ${JSON.stringify(labels)}::jsonb, ${type}, ${base64}, ${comment},
              ${fingerprint}, now())
      RETURNING ${COLUMNS}`,
  );
}

function named(projectId: ProjectId, idOrName: string): Prisma.Sql {
  const match = isUuid(idOrName) ? Prisma.sql`id = ${idOrName}::uuid` : Prisma.sql`name = ${idOrName}`;
  return Prisma.sql`project_id = ${projectId}::uuid AND ${match}`;
}

/** The key of this id or name in the project, or null. */
export async function findSshKey(
  db: Sql,
  projectId: ProjectId,
  idOrName: string,
): Promise<SshKeyRecord | null> {
  const [row] = await db.$queryRaw<
    SshKeyRecord[]
  >`SELECT ${COLUMNS} FROM ssh_key WHERE ${named(projectId, idOrName)}`;
  return row ?? null;
}

/** The same, its row locked until the transaction ends. */
export async function lockSshKey(
  tx: Tx,
  projectId: ProjectId,
  idOrName: string,
): Promise<SshKeyRecord | null> {
  const [row] = await tx.$queryRaw<SshKeyRecord[]>`
    SELECT ${COLUMNS} FROM ssh_key WHERE ${named(projectId, idOrName)} FOR UPDATE`;
  return row ?? null;
}

/** Those of these ids and names that the project has, in no order. */
export async function findSshKeys(
  db: Sql,
  projectId: ProjectId,
  idsAndNames: readonly string[],
): Promise<SshKeyRecord[]> {
  if (idsAndNames.length === 0) return [];
  // As text, for a name is no UUID: the project's keys are few.
  return await db.$queryRaw<SshKeyRecord[]>`
    SELECT ${COLUMNS} FROM ssh_key WHERE project_id = ${projectId}::uuid
      AND (name = ANY(${[...idsAndNames]}::text[]) OR id::text = ANY(${[...idsAndNames]}::text[]))`;
}

export async function updateSshKeyLabels(
  tx: Tx,
  id: SshKeyId,
  labels: Readonly<Record<string, string>>,
): Promise<SshKeyRecord> {
  return written(
    await tx.$queryRaw<SshKeyRecord[]>`
      UPDATE ssh_key SET labels = ${JSON.stringify(labels)}::jsonb, generation = generation + 1, updated_at = now()
      WHERE id = ${id}::uuid RETURNING ${COLUMNS}`,
  );
}

export async function deleteSshKeyRow(tx: Tx, id: SshKeyId): Promise<void> {
  await tx.$executeRaw`DELETE FROM ssh_key WHERE id = ${id}::uuid`;
}

export interface SshKeyFilter {
  readonly name?: string | undefined;
  readonly fingerprint?: string | undefined;
  readonly labels?: readonly LabelRequirement[] | undefined;
}

/** Keys of a project in a keyset order: `after` holds the last page's ordering value and id. */
export async function listSshKeys(
  db: Sql,
  projectId: ProjectId,
  filter: SshKeyFilter,
  order: KeysetOrder,
  page: KeysetPage,
): Promise<SshKeyRecord[]> {
  const conditions = [Prisma.sql`project_id = ${projectId}::uuid`, ...conditionsOf(filter)];
  return await db.$queryRaw<SshKeyRecord[]>`
    SELECT ${COLUMNS} FROM ssh_key ${keysetPage(Prisma.sql`ssh_key`, conditions, order, page)}`;
}

function conditionsOf({ name, fingerprint, labels }: SshKeyFilter): Prisma.Sql[] {
  const conditions: Prisma.Sql[] = [];
  if (name !== undefined) conditions.push(Prisma.sql`name = ${name}`);
  if (fingerprint !== undefined) conditions.push(Prisma.sql`fingerprint = ${fingerprint}`);
  if (labels !== undefined) conditions.push(labelCondition(labels, Prisma.sql`labels`));
  return conditions;
}

function written([row]: readonly SshKeyRecord[]): SshKeyRecord {
  if (row === undefined) throw new Error("an ssh key was written, and no row came back");
  return row;
}
