import { createHash } from "node:crypto";
import type { Tx } from "../db/transaction.ts";
import type { Subject } from "./operation-kind.ts";

/**
 * One subject is one lane. Who changes what is in a lane holds the lane's lock until its commit; so the order of
 * `seq`, drawn under the lock, is the order of the commits.
 *
 * The order of all locks is: lanes, then rows of operations by `seq`, then the rows of features. A caller that
 * enqueues for something that exists already enqueues (or calls lockSubjects) before it locks rows of its own.
 */

export type SubjectMode = Subject["mode"];

export interface LaneLock {
  readonly key: bigint;
  readonly mode: SubjectMode;
}

/** Each subject once: exclusive where it is named in both modes. */
export function distinctSubjects(subjects: readonly Subject[]): Subject[] {
  const byKey = new Map<string, Subject>();
  for (const subject of subjects) {
    const key = `${subject.kind}:${subject.id}`;
    if (byKey.get(key)?.mode !== "exclusive") byKey.set(key, subject);
  }
  return [...byKey.values()];
}

// Bit 62 set, the sign clear: apart from the small keys that other advisory locks use.
const KEY_BITS = (1n << 62n) - 1n;

/** The lane's lock key: the same in every process and release. */
export function laneKey(subject: Pick<Subject, "kind" | "id">): bigint {
  const digest = createHash("sha256").update(`${subject.kind}:${subject.id}`).digest();
  return (digest.readBigUInt64BE() & KEY_BITS) | (1n << 62n);
}

/** What to lock, in the one order in which everybody locks. Two subjects that share a key are one lock. */
export function laneLocks(subjects: readonly Subject[]): LaneLock[] {
  const modes = new Map<bigint, SubjectMode>();
  for (const subject of subjects) {
    const key = laneKey(subject);
    if (modes.get(key) !== "exclusive") modes.set(key, subject.mode);
  }
  return [...modes]
    .map(([key, mode]) => ({ key, mode }))
    .toSorted((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
}

/**
 * Locks lanes until the end of the transaction. Shared subjects take the lock in shared mode: operations that only
 * share a subject never conflict, so their order there does not matter, and a thousand creates from one image do
 * not wait for one another.
 */
export async function lockSubjects(tx: Tx, subjects: readonly Subject[]): Promise<void> {
  const locks = laneLocks(subjects);
  if (locks.length === 0) return;
  // Rows come out of unnest in their order, and the locks are taken row by row.
  await tx.$executeRaw`
    SELECT CASE WHEN l.shared THEN pg_advisory_xact_lock_shared(l.key)::text ELSE pg_advisory_xact_lock(l.key)::text END
    FROM unnest(${locks.map((lock) => lock.key.toString())}::text[]::bigint[],
                ${locks.map((lock) => lock.mode === "shared")}::boolean[]) AS l(key, shared)`;
}
