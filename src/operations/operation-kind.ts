import type { z } from "zod";
import type { Prisma } from "../db/generated/client.ts";
import type { Sql, Tx } from "../db/transaction.ts";
import type { Call, HostConnection } from "../hypervisors/hypervisor.ts";
import type { DroverError } from "../lib/errors.ts";
import type { HostId, OperationId, ProjectId } from "../lib/ids.ts";
import type { JsonObject } from "../lib/json.ts";

/**
 * How a piece of work is written down: a table of steps with their undo. The runner knows how to record, resume,
 * retry and undo steps; a kind knows only what each step does.
 */

/** The operation as its steps see it. `input` never changes after it was queued. */
export interface OperationContext<Input> {
  readonly id: OperationId;
  readonly kind: string;
  readonly projectId: ProjectId | null;
  readonly input: Input;
}

/** What a step has at hand. `host` is there exactly when the step names a host. */
export interface StepContext<Input> {
  readonly operation: OperationContext<Input>;
  /** Aborts when the operation is cancelled or superseded, the step's time is over, or the worker lost its right. */
  readonly signal: AbortSignal;
  /** To be given to each call of the host's connection; limits come from the step. */
  readonly call: Call;
  readonly host: HostConnection | null;
  /** True when this step may have run before (its row was there): look before acting. */
  readonly resumed: boolean;
  /**
   * Reads, outside any transaction. What was read may be out of date in the next moment, and the right to the operation
   * lost: calls to the host and writes check that for themselves.
   */
  read<T>(work: (db: Sql) => Promise<T>): Promise<T>;
  /** Runs a transaction that commits only while this worker still has the right to the operation. */
  transaction<T>(work: (tx: Tx) => Promise<T>): Promise<T>;
  /** Progress inside a long step, such as bytes sent; written at most once a second. */
  progress(done: number, total: number, unit: "bytes" | "items"): void;
}

/** What the undo of a step has at hand; `found` is what `find` recorded, null when it never came so far. */
export interface UndoContext<Input, Found> extends StepContext<Input> {
  readonly found: Found | null;
}

/** A look-up, or a subquery that becomes a part of the statement that begins the step. */
export type StepHost<Input> =
  | ((tx: Tx, input: Input) => Promise<HostId | null>)
  | { readonly subquery: (input: Input) => Prisma.Sql };

/** Parts of a statement. */
export interface StepWrites {
  /** For its WITH. Each takes its rows from `o`, the operation under its claim: there is none when that is lost. */
  readonly parts: readonly Prisma.Sql[];
  /** For `insertEvents`. */
  readonly events: readonly Prisma.Sql[];
}

/**
 * One idempotent part of an operation. The order is: find (observe; what it found is recorded), run (act),
 * record (in the transaction that marks the step done). Killed anywhere in between, it starts again with the
 * recorded find.
 */
export interface Step<Input, Found extends JsonObject = JsonObject> {
  readonly name: string;
  /** The host that this step talks to; null: none. Told from the input and the inventory, when the step begins. */
  readonly host?: StepHost<Input>;
  /** Leaves the step out: recorded as succeeded at once. Told from the input only. */
  readonly skip?: (input: Input) => boolean;
  /** Limit of one attempt, in seconds; 60 without. */
  readonly timeoutSeconds?: number | ((input: Input) => number);
  /** Attempts at a retryable failure, first one included; 5 without. An unreachable host does not count. */
  readonly maxAttempts?: number;
  readonly find?: (context: StepContext<Input>) => Promise<Found>;
  readonly run: (
    context: StepContext<Input> & { readonly found: Found | null },
  ) => Promise<JsonObject | undefined>;
  /**
   * Inventory changes in the statement that records the step, which so needs no transaction. They do not change where
   * later steps run.
   */
  readonly write?: (operation: OperationContext<Input>, result: JsonObject | undefined) => StepWrites;
  /** Inventory changes that commit together with the step's record, in statements of their own. */
  readonly record?: (
    tx: Tx,
    operation: OperationContext<Input>,
    result: JsonObject | undefined,
  ) => Promise<void>;
  /**
   * Takes back what this operation did in this step, however far it came. Idempotent. Not called when the step has
   * a `find` that was never recorded: then `run` never began. It goes to the host that the step ran on.
   */
  readonly undo?: (context: UndoContext<Input, Found>) => Promise<void>;
  /** Inventory changes that commit together with the record of the undo; called for each step that began. */
  readonly recordUndo?: (tx: Tx, operation: OperationContext<Input>) => Promise<void>;
}

/** What the check at the operation's turn says: go on, nothing to do, or why not. */
export type Admission =
  | { readonly kind: "run" }
  | { readonly kind: "done" }
  | { readonly kind: "refuse"; readonly error: DroverError };

/** How an operation ended, for `onEnd`. */
export type OperationOutcome =
  | { readonly state: "succeeded" }
  | {
      readonly state: "failed" | "cancelled" | "attention";
      readonly error: DroverError;
      readonly undone: boolean;
    };

export type Overtaking = boolean | "all";

export interface OperationKind<Input> {
  /** `<resource>.<verb>`, such as `vm.create`. */
  readonly name: string;
  readonly input: z.ZodType<Input>;
  readonly steps: readonly Step<Input>[];
  /** From being queued to being given up, in seconds. */
  readonly deadlineSeconds: number | ((input: Input) => number);
  /**
   * Once begun it goes forward until done or `attention`: a failure is not undone, and it cannot be cancelled.
   * Forced stop and delete. A first step that refuses with a DroverError, and so did nothing, ends it as `failed`.
   */
  readonly forwardOnly?: boolean | ((input: Input) => boolean);
  /**
   * Cancels what is queued before it on its exclusive subjects and aborts what runs. `true` (a forced stop) spares
   * what overtakes itself; `"all"` (a delete) overtakes a forced stop too, but no other delete.
   */
  readonly overtakes?: Overtaking | ((input: Input) => Overtaking);
  /**
   * How many run at once in one worker, for heavy work that touches no host; the others wait and say so. Without: as
   * many as the worker takes.
   */
  readonly perWorker?: number;
  /** Asked in a transaction when its turn has come: states are checked here, not when it is queued. */
  readonly admit?: (tx: Tx, operation: OperationContext<Input>) => Promise<Admission>;
  /** In the transaction that ends the operation, whatever the end. */
  readonly onEnd?: (tx: Tx, operation: OperationContext<Input>, outcome: OperationOutcome) => Promise<void>;
}

export interface Subject {
  readonly kind: "vm" | "image" | "volume" | "network" | "host" | "hostImage";
  readonly id: string;
  readonly mode: "shared" | "exclusive";
}

/** What a client sees of the subjects: `targets` of an operation. */
export interface Target {
  readonly kind: Exclude<Subject["kind"], "hostImage">;
  readonly id: string;
  readonly name: string;
}

export interface EnqueueRequest<Input> {
  /** Made by the queue without. */
  readonly id?: OperationId;
  /** Where its first step runs, where the caller knows; else the step is asked. */
  readonly hostId?: HostId;
  readonly kind: OperationKind<Input>;
  readonly input: Input;
  readonly subjects: readonly Subject[];
  readonly targets: readonly Target[];
  readonly projectId: ProjectId | null;
  /** Names of the hosts that it touches, as far as known now. */
  readonly hosts: readonly string[];
  /** Who asked: `token:<name>` or `system`. */
  readonly actor: string;
  readonly requestId: string | null;
}

/** A kind whose input type is forgotten: what the registry, the queue and the runner handle. */
export type AnyOperationKind = OperationKind<unknown>;

/** Forgets the type of a kind's input, so that kinds of all features stand in one list. */
export function anyKind<Input>(kind: OperationKind<Input>): AnyOperationKind {
  // Whatever reaches its functions was parsed by the kind's own schema.
  return kind as unknown as AnyOperationKind;
}

/** Checks a step's types where it is written and forgets them, so that steps stand in one list. */
export function step<Input, Found extends JsonObject>(definition: Step<Input, Found>): Step<Input> {
  // Found is written and read only by this step, through its own record in the database.
  return definition as unknown as Step<Input>;
}
