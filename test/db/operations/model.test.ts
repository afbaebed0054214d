import * as fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { canBecome, type OperationState } from "../../../src/operations/operation-state.ts";
import { until } from "./harness.ts";
import { commands, makePeace, takesBack } from "./model/commands.ts";
import { EngineModel, type OperationModel } from "./model/engine-model.ts";
import { openStage, Real, type Stage } from "./model/real.ts";

/**
 * Random sequences of what can happen to the engine, against a model that says after each command what every
 * operation must be doing. The same seed gives the same commands:
 * DROVER_MODEL_SEED=7 DROVER_MODEL_RUNS=2000 runs from another seed, for as long as is wanted; DROVER_MODEL_PATH, as
 * a failure prints it, begins with the sequence that failed.
 */
const SEED = Number(process.env["DROVER_MODEL_SEED"] ?? 7420);
const PATH = process.env["DROVER_MODEL_PATH"];
const RUNS = Number(process.env["DROVER_MODEL_RUNS"] ?? 20);
const MOST_MS_A_RUN = 120_000;

let stage: Stage;
beforeAll(async () => {
  stage = await openStage();
  await stage.engine.db
    .$executeRaw`CREATE TABLE state_change (old_state text, new_state text, UNIQUE (old_state, new_state))`;
  await stage.engine.db.$executeRaw`
    CREATE FUNCTION note_state_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO state_change VALUES (OLD.state, NEW.state) ON CONFLICT DO NOTHING;
      RETURN NULL;
    END $$`;
  await stage.engine.db.$executeRaw`
    CREATE TRIGGER note_state_change AFTER UPDATE ON operation FOR EACH ROW EXECUTE FUNCTION note_state_change()`;
});
afterAll(async () => {
  await stage.close();
});

test(`whatever happens, the engine does what its model says (seed ${SEED})`, {
  timeout: RUNS * MOST_MS_A_RUN,
}, async () => {
  await fc.assert(
    fc.asyncProperty(commands, async (sequence) => {
      const model = new EngineModel();
      const real = new Real(stage);
      try {
        await fc.asyncModelRun(() => ({ model, real }), sequence);
        await makePeace(model, real);
        for (const operation of model.operations.values()) checkEffects(operation);
        await checkRecords(model, real);
        await checkEvents(model, real);
        expect(await nothingHeld()).toEqual([{ lanes: 0, claims: 0 }]);
      } finally {
        await real.close();
      }
    }),
    {
      seed: SEED,
      numRuns: RUNS,
      ...(PATH === undefined ? {} : { path: PATH }),
      endOnFailure: true,
      includeErrorInReport: true,
      verbose: fc.VerbosityLevel.Verbose,
    },
  );
  // Whatever the statements did, they moved along the arrows that operation-state.ts draws.
  const changes = await stage.engine.db.$queryRaw<{ old_state: OperationState; new_state: OperationState }[]>`
    SELECT old_state, new_state FROM state_change`;
  for (const { old_state, new_state } of changes)
    expect([old_state, new_state, canBecome(old_state, new_state)]).toEqual([old_state, new_state, true]);
});

/** Each step has acted at most once more than it was taken back, and lies there exactly when it should. */
function checkEffects(operation: OperationModel): void {
  const effects = operation.steps.map((_, position) => stage.world.effect(operation.key, position));
  for (const { lies, done, undone } of effects)
    expect([done - undone, operation.key]).toEqual([lies ? 1 : 0, operation.key]);
  expect(effects.map(({ lies }) => lies)).toEqual(operation.steps.map(({ acted }) => acted));
  if (operation.end === "succeeded" || takesBack(operation))
    for (const { lies } of effects) expect(lies && operation.end !== "succeeded").toBe(false);
}

/** What commits with a step's record or with the end has committed once with it. */
async function checkRecords(model: EngineModel, real: Real): Promise<void> {
  const rows = await stage.engine.db.$queryRaw<{ id: string; what: string; count: number }[]>`
    SELECT operation_id AS id, what, count(*)::int AS count FROM model_record GROUP BY 1, 2`;
  const counted = new Map(rows.map(({ id, what, count }) => [`${id} ${what}`, count]));
  for (const { key, done, events } of model.operations.values()) {
    const id = real.idOf(key);
    expect(counted.get(`${id} recorded`) ?? 0).toBe(done > 1 ? 1 : 0);
    expect(counted.get(`${id} ended`) ?? 0).toBe(events.filter((event) => ENDS.includes(event)).length);
  }
}

const ENDS: readonly string[] = ["succeeded", "failed", "cancelled", "attention"];

async function checkEvents(model: EngineModel, real: Real): Promise<void> {
  const { db } = stage.engine;
  await until("every event has its number", async () => {
    const waiting = await db.event.count({ where: { seq: null } });
    return waiting === 0 ? true : null;
  });
  const [counts] = await db.$queryRaw<{ count: bigint; newest: bigint }[]>`
    SELECT count(*) AS count, coalesce(max(seq), 0) AS newest FROM event`;
  expect(counts?.count).toBe(counts?.newest);
  const events = await db.$queryRaw<{ id: string; type: string; seq: bigint }[]>`
    SELECT operation_id AS id, type, seq FROM event
    WHERE operation_id = ANY(${[...real.ids.values()]}::text[]::uuid[]) ORDER BY seq`;
  const seqOf = (key: number, types: readonly string[]): bigint | undefined =>
    events.find(({ id, type }) => id === real.idOf(key) && types.includes(type.replace("operation.", "")))
      ?.seq;
  for (const operation of model.operations.values()) {
    const own = events.filter(({ id }) => id === real.idOf(operation.key));
    expect(own.map(({ type }) => type)).toEqual(operation.events.map((event) => `operation.${event}`));
    const started = seqOf(operation.key, ["started"]);
    if (started === undefined) continue;
    for (const earlier of operation.after) expect(seqOf(earlier, ENDS)).toBeLessThan(started);
  }
}

async function nothingHeld(): Promise<unknown> {
  return await stage.engine.db.$queryRaw`
    SELECT (SELECT count(*)::int FROM operation_subject WHERE unfinished OR active) AS lanes,
           (SELECT count(*)::int FROM operation WHERE token IS NOT NULL OR worker_id IS NOT NULL) AS claims`;
}
