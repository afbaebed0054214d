import { DroverError } from "../lib/errors.ts";
import { type CrashProbe, noProbe } from "./crash-points.ts";
import type { AnyOperationKind, OperationKind, Overtaking } from "./operation-kind.ts";

/** Every kind of operation that this program knows, by name. */
export interface KindRegistry {
  readonly names: readonly string[];
  /** Throws `internal` for a kind that this program does not know: a newer release queued it. */
  get(name: string): AnyOperationKind;
  /** Called while an operation is queued, before its transaction commits. */
  readonly probe: CrashProbe;
}

export function createKindRegistry(
  kinds: readonly AnyOperationKind[],
  probe: CrashProbe = noProbe,
): KindRegistry {
  const byName = new Map<string, AnyOperationKind>();
  for (const kind of kinds) {
    if (byName.has(kind.name)) throw new TypeError(`two operation kinds are named ${kind.name}`);
    const steps = new Set(kind.steps.map((step) => step.name));
    if (steps.size !== kind.steps.length) throw new TypeError(`two steps of ${kind.name} have one name`);
    byName.set(kind.name, kind);
  }
  return {
    probe,
    names: [...byName.keys()],
    get(name) {
      const kind = byName.get(name);
      if (kind !== undefined) return kind;
      throw new DroverError("internal", `The operation kind ${name} is unknown to this version of Drover.`);
    },
  };
}

export function isForwardOnly<Input>(kind: OperationKind<Input>, input: Input): boolean {
  return typeof kind.forwardOnly === "function" ? kind.forwardOnly(input) : (kind.forwardOnly ?? false);
}

/** 0 overtakes nothing, 1 ordinary changes, 2 those of rank 1 too. What it cancels has a lower rank than its own. */
export function overtakingRank<Input>(kind: OperationKind<Input>, input: Input): 0 | 1 | 2 {
  const overtakes: Overtaking =
    typeof kind.overtakes === "function" ? kind.overtakes(input) : (kind.overtakes ?? false);
  if (overtakes === "all") return 2;
  return overtakes ? 1 : 0;
}

export function deadlineSeconds<Input>(kind: OperationKind<Input>, input: Input): number {
  return typeof kind.deadlineSeconds === "function" ? kind.deadlineSeconds(input) : kind.deadlineSeconds;
}

/** An operation that overtakes others is also claimed before others. */
export const OVERTAKING_PRIORITY = 10;
