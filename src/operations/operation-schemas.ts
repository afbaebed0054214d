import { z } from "zod";
import { ErrorBodySchema } from "../http/problem.ts";
import { Id, Timestamp } from "../http/schemas.ts";
import { OPERATION_STATES, STEP_STATES } from "./operation-state.ts";

/** Operations as the API shows them. */

export const OperationStateSchema = z.enum(OPERATION_STATES).meta({
  id: "OperationState",
  description:
    "`blocked` waits for earlier operations (`blockedBy`), `pending` for a worker, its host or a pause (`waitReason`). " +
    "`succeeded`, `failed`, `cancelled` and `attention` are ends; `attention` means that it could neither be " +
    "finished nor undone and a person must look: retry it, or delete or stop what it was about.",
});

const TargetSchema = z
  .strictObject({ kind: z.enum(["vm", "image", "volume", "network", "host"]), id: Id, name: z.string() })
  .meta({ id: "Target", description: "What an operation is about." });

const OperationStepSchema = z
  .strictObject({
    name: z.string(),
    state: z.enum(STEP_STATES),
    startedAt: Timestamp,
    endedAt: Timestamp.nullable(),
    attempts: z.int().meta({ description: "0 when the step was left out." }),
    progress: z
      .strictObject({ done: z.number(), total: z.number(), unit: z.enum(["bytes", "items"]) })
      .nullable()
      .meta({ description: "How far a long step has come." }),
    error: ErrorBodySchema.nullable().meta({ description: "Of its last attempt, or of its undo." }),
  })
  .meta({ id: "OperationStep" });

export const OperationSchema = z
  .strictObject({
    id: Id,
    kind: z.string().meta({ examples: ["vm.create"] }),
    state: OperationStateSchema,
    targets: z.array(TargetSchema),
    hosts: z.array(z.string()).meta({ description: "Names of the hosts that it touches." }),
    blockedBy: z.array(Id).meta({ description: "Operations that it waits for, the oldest ten." }),
    waitReason: ErrorBodySchema.nullable().meta({ description: "Why it waits though nothing blocks it." }),
    attempt: z.int().meta({ description: "How often a worker has taken it up." }),
    steps: z.array(OperationStepSchema).meta({ description: "Those that have begun, in order." }),
    progress: z.strictObject({ done: z.int(), total: z.int() }).meta({ description: "In steps." }),
    cancellable: z.boolean(),
    deadline: Timestamp,
    error: ErrorBodySchema.nullable(),
    result: z.record(z.string(), z.unknown()).nullable(),
    createdAt: Timestamp,
    startedAt: Timestamp.nullable(),
    endedAt: Timestamp.nullable(),
    requestId: z.string().nullable().meta({ description: "Of the request that asked for it." }),
    actor: z.string().meta({ examples: ["token:admin"] }),
  })
  .meta({ id: "Operation", description: "A durable unit of work, made of steps." });

export type OperationView = z.output<typeof OperationSchema>;
