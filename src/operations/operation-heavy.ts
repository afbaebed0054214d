import type { JsonObject } from "../lib/json.ts";
import type { KindRegistry } from "./operation-kinds.ts";

/** A kind of which a worker runs only so many at once. */
export interface HeavyKind {
  readonly kind: string;
  readonly most: number;
}

export function heavyKinds(kinds: KindRegistry): HeavyKind[] {
  return kinds.names.flatMap((kind) => {
    const { perWorker } = kinds.get(kind);
    return perWorker === undefined ? [] : [{ kind, most: perWorker }];
  });
}

/** What the client of one that waits for its turn is told. */
export function fullKindReason({ kind, most }: HeavyKind): JsonObject {
  const number = most === 1 ? "one operation" : `${most} operations`;
  return {
    code: "unavailable",
    message: `A worker runs ${number} of the kind ${kind} at a time, and all workers are busy. It waits for its turn.`,
    retry: "temporary",
  };
}
