import * as fc from "fast-check";
import { DroverError } from "../../../../src/lib/errors.ts";
import { cancelOperation, retryOperation } from "../../../../src/operations/operation-cancel.ts";
import {
  type EngineModel,
  isForwardOnly,
  type OperationModel,
  type Outcome,
  type Spec,
} from "./engine-model.ts";
import { expectRefusal, type Real } from "./real.ts";
import type { PendingCall } from "./world.ts";

/** What can happen to the engine. Each command does it to both sides, and waits until the real one is as the model. */

type Command = fc.AsyncCommand<EngineModel, Real, boolean>;

const MOST_WORKERS = 3;

function command(
  name: string,
  check: (model: EngineModel) => boolean,
  run: (model: EngineModel, real: Real) => Promise<void>,
): Command {
  return {
    check,
    run: async (model, real) => {
      await run(model, real);
      await real.rest(model);
    },
    toString: () => name,
  };
}

/** A command on one of the operations that it can be done to. */
function onOne(
  name: string,
  pick: number,
  choices: (model: EngineModel) => readonly OperationModel[],
  run: (operation: OperationModel, model: EngineModel, real: Real) => Promise<void>,
): Command {
  return command(
    `${name} ${pick}`,
    (model) => choices(model).length > 0,
    async (model, real) => {
      const found = choices(model);
      const operation = found[pick % found.length];
      if (operation !== undefined) await run(operation, model, real);
    },
  );
}

const host = fc.nat({ max: 1 });
const picked = fc.nat({ max: 30 });

const subjects = fc.uniqueArray(fc.record({ vm: fc.nat({ max: 2 }), exclusive: fc.boolean() }), {
  minLength: 1,
  maxLength: 2,
  selector: ({ vm }) => vm,
});
const change: fc.Arbitrary<Spec> = fc.record({
  kind: fc.constant("change" as const),
  subjects,
  hosts: fc.array(fc.oneof({ weight: 5, arbitrary: host }, { weight: 1, arbitrary: fc.constant(null) }), {
    minLength: 1,
    maxLength: 3,
  }),
  admit: fc.oneof(
    { weight: 10, arbitrary: fc.constant("run" as const) },
    { weight: 1, arbitrary: fc.constantFrom("done" as const, "refuse" as const) },
  ),
});
const overtaker: fc.Arbitrary<Spec> = fc.record({
  kind: fc.constantFrom("stop" as const, "delete" as const),
  subjects: fc.nat({ max: 2 }).map((vm) => [{ vm, exclusive: true }]),
  hosts: fc.array(host, { minLength: 1, maxLength: 2 }),
  admit: fc.constant("run" as const),
});

function enqueueOne(spec: Spec): Command {
  return command(
    `enqueue ${JSON.stringify(spec)}`,
    () => true,
    async (model, real) => {
      const key = real.stage.nextKey();
      await real.enqueue(key, spec);
      model.enqueue(key, spec);
    },
  );
}

/** Several at once: the order is whatever the engine says, as long as it keeps to it. */
function enqueueBurst(specs: readonly Spec[]): Command {
  return command(
    `enqueue at once ${JSON.stringify(specs)}`,
    () => true,
    async (model, real) => {
      const queued = await Promise.all(
        specs.map(async (spec) => {
          const key = real.stage.nextKey();
          return { key, spec, seq: await real.enqueue(key, spec) };
        }),
      );
      for (const { key, spec } of queued.toSorted((a, b) => Number(a.seq - b.seq))) model.enqueue(key, spec);
    },
  );
}

const answer = fc
  .tuple(
    picked,
    fc.constantFrom<Outcome>("success", "success", "success", "retryable", "final", "refused", "unreachable"),
  )
  .map(([pick, outcome]) =>
    onOne(
      `answer ${outcome}`,
      pick,
      (model) => model.atGate(),
      async (operation, model, real) => {
        real.answer(operation.key, outcome);
        model.answer(operation, outcome);
      },
    ),
  );

const act = picked.map((pick) =>
  onOne(
    "act",
    pick,
    (model) => model.atGate(),
    async (operation, model, real) => {
      real.stage.world.callOf(operation.key)?.act();
      model.act(operation);
    },
  ),
);

const cancel = picked.map((pick) =>
  onOne(
    "cancel",
    pick,
    (model) => [...model.operations.values()].toReversed(),
    async (operation, model, real) => {
      const { engine } = real.stage;
      const told = await engine.db
        .transaction((tx) => cancelOperation(tx, engine.kinds, real.idOf(operation.key)))
        .catch((error: unknown) => {
          if (error instanceof DroverError) return error.code;
          throw error;
        });
      const wanted = model.cancel(operation);
      if (told !== wanted) throw new Error(`cancel of ${operation.key} said ${told} instead of ${wanted}`);
    },
  ),
);

const retry = picked.map((pick) =>
  onOne(
    "retry",
    pick,
    (model) => [...model.operations.values()].filter(({ end }) => end === "attention"),
    async (operation, model, real) => {
      const { engine } = real.stage;
      await engine.db.transaction((tx) => retryOperation(tx, engine.kinds, real.idOf(operation.key)));
      // The API's own action: what an operation that needs attention is sent on with.
      model.retry(operation);
    },
  ),
);

const deadline = picked.map((pick) =>
  onOne(
    "deadline",
    pick,
    (model) => (model.workers === 0 ? [] : model.unfinished().filter(({ gate }) => gate === null)),
    async (operation, model, real) => {
      await real.stage.engine.db.$executeRaw`
        UPDATE operation SET deadline = deadline - interval '1 day', undo_deadline = undo_deadline - interval '1 day'
        WHERE id = ${real.idOf(operation.key)}::uuid`;
      model.deadline(operation);
    },
  ),
);

const startWorker = fc.constant(
  command(
    "start a worker",
    (model) => model.workers < MOST_WORKERS,
    async (model, real) => {
      await real.startWorker(model.silent);
      model.workers++;
    },
  ),
);

/** Whoever is in these calls loses the right to them: before their effect, or between it and its record. */
function loseCalls(model: EngineModel, calls: readonly PendingCall[], acted: boolean): void {
  for (const call of calls) {
    const operation = model.operations.get(call.key);
    if (operation === undefined) continue;
    if (acted) {
      call.act();
      model.act(operation);
    }
    call.zombie = true;
    model.lose(operation);
  }
}

/** kill -9, or a worker that is frozen until its lease is over and then goes on. */
const loseWorker = fc
  .tuple(picked, fc.constantFrom("kill" as const, "freeze" as const), fc.boolean(), fc.boolean())
  .map(([pick, how, acted, late]) =>
    command(
      `${how} ${pick}${acted ? ", its calls took effect" : ""}${late ? ", it tries to go on later" : ""}`,
      (model) => model.workers > 0,
      async (model, real) => {
        const lost = real.takeAway(pick % model.workers);
        const calls = await real.callsOf(lost);
        model.workers--;
        loseCalls(model, calls, acted);
        const { db } = real.stage.engine;
        const { workerId } = lost.worker.lease;
        if (how === "kill") {
          await lost.worker.kill();
          await db.$executeRaw`UPDATE worker SET sends_until = now() - interval '1 s' WHERE id = ${workerId}::uuid`;
        } else
          await db.$executeRaw`UPDATE worker SET lease_expires_at = now() - interval '1 s' WHERE id = ${workerId}::uuid`;
        lost.passTime();
        for (const call of calls) {
          expectRefusal(real.stage.world, call);
          if (!late) call.answer("success");
        }
      },
    ),
  );

/** A worker that stops in order: what runs ends in time, or is aborted and given up. */
const drain = fc.tuple(picked, fc.boolean()).map(([pick, inTime]) =>
  command(
    `drain ${pick}${inTime ? ", in time" : ""}`,
    (model) => model.workers > 0,
    async (model, real) => {
      real.wakeZombies();
      const leaving = real.takeAway(pick % model.workers);
      const calls = await real.callsOf(leaving);
      model.workers--;
      const stopped = leaving.worker.runner.stop({ drainSeconds: inTime ? 30 : 0 });
      for (const call of calls) {
        const operation = model.operations.get(call.key);
        if (inTime) {
          real.answer(call.key, "success");
          if (operation !== undefined) model.answerWhileDraining(operation);
        } else if (operation !== undefined) model.giveBack(operation);
      }
      await stopped;
      await leaving.worker.stop();
    },
  ),
);

/** A host's owner loses it, with all that runs there. */
const steal = fc.tuple(host, fc.boolean()).map(([index, acted]) =>
  command(
    `steal host ${index}${acted ? ", its calls took effect" : ""}`,
    (model) => model.workers > 0,
    async (model, real) => {
      loseCalls(model, await real.callsOn(index), acted);
      for (const { worker } of real.workers) await worker.lose(real.hostId(index));
    },
  ),
);

const zombies = fc.constant(
  command(
    "zombies wake",
    () => true,
    async (_model, real) => {
      real.wakeZombies();
    },
  ),
);

const silence = host.map((index) =>
  command(
    `host ${index} goes silent`,
    (model) => !model.silent.has(index),
    async (model, real) => {
      model.silent.add(index);
      for (const { worker } of real.workers) worker.silent.add(real.hostId(index));
    },
  ),
);

async function speakAgain(model: EngineModel, real: Real, index: number): Promise<void> {
  model.silent.delete(index);
  for (const { worker } of real.workers) worker.silent.delete(real.hostId(index));
}

const speak = host.map((index) =>
  command(
    `host ${index} is back`,
    (model) => model.silent.has(index),
    (model, real) => speakAgain(model, real, index),
  ),
);

export const commands = fc.commands<EngineModel, Real, boolean>(
  [
    ...[change, change, change, overtaker].map((specs) => specs.map(enqueueOne)),
    fc.array(change, { minLength: 2, maxLength: 5 }).map(enqueueBurst),
    ...[answer, answer, answer, answer, answer, answer, act, act, cancel, cancel],
    ...[
      startWorker,
      startWorker,
      loseWorker,
      loseWorker,
      drain,
      steal,
      zombies,
      retry,
      retry,
      deadline,
      silence,
      speak,
      speak,
    ],
  ],
  { maxCommands: 40, size: "+1" },
);

/** Leaves the world in peace with a worker: everything must end. */
export async function makePeace(model: EngineModel, real: Real): Promise<void> {
  for (const index of [...model.silent]) await speakAgain(model, real, index);
  if (model.workers === 0) {
    await real.startWorker(model.silent);
    model.workers++;
  }
  real.wakeZombies();
  await real.rest(model);
  while (model.unfinished().length > 0) {
    for (const operation of model.atGate()) {
      real.answer(operation.key, "success");
      model.answer(operation, "success");
    }
    await real.rest(model);
  }
}

/** True for what keeps its effects only when it succeeds. */
export function takesBack(operation: OperationModel): boolean {
  return !isForwardOnly(operation) && operation.end !== "attention";
}
