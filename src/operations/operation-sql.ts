import { Prisma } from "../db/generated/client.ts";
import type { Subject } from "./operation-kind.ts";

/** Pieces that several statements of the queue are made of. */

/** Subjects as rows `s(kind, subject_id, mode)`. */
export function subjectRows(subjects: readonly Subject[]): Prisma.Sql {
  return Prisma.sql`unnest(${subjects.map((s) => s.kind)}::text[], ${subjects.map((s) => s.id)}::text[]::uuid[],
    ${subjects.map((s) => s.mode)}::text[]) AS s(kind, subject_id, mode)`;
}

/** A JSON parameter; null is SQL's NULL. */
export function jsonParameter(value: unknown): Prisma.Sql {
  return value === null || value === undefined
    ? Prisma.sql`NULL::jsonb`
    : Prisma.sql`${JSON.stringify(value)}::jsonb`;
}

/** A claim: what a worker proves its right to an operation with. */
export interface Claim {
  readonly operationId: string;
  readonly token: string;
}

/**
 * The condition of every write under a claim, on `operation o`: the token is the claim's, the lease of the worker
 * that took it is not over, and the host has the owner and the epoch that it had then.
 */
export function underClaim(claim: Claim): Prisma.Sql {
  return Prisma.sql`o.id = ${claim.operationId}::uuid AND o.token = ${claim.token}::uuid
    AND EXISTS (SELECT FROM worker w WHERE w.id = o.worker_id AND w.lease_expires_at > clock_timestamp())
    AND (o.host_id IS NULL OR EXISTS (
      SELECT FROM host h WHERE h.id = o.host_id AND h.owner_id = o.worker_id AND h.epoch = o.epoch))`;
}

/** Assignments that give a claim up. */
export const unclaimed = Prisma.sql`token = NULL, worker_id = NULL, epoch = NULL`;
