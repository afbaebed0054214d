import type { Mutant } from "./mutant.ts";

const OPERATIONS = "test/db/operations";

/** Mistakes in the operation engine and the event log. */
export const ENGINE_MUTANTS: readonly Mutant[] = [
  {
    name: "no-token-check",
    breaks: "writes of a worker whose operation another one has taken",
    edits: [
      {
        file: "src/operations/operation-sql.ts",
        find: " AND o.token = ${claim.token}::uuid",
        replace: " AND ${claim.token}::uuid IS NOT NULL",
      },
    ],
    test: { file: `${OPERATIONS}/workers.test.ts`, title: "its token is stolen" },
  },
  {
    name: "no-epoch-check",
    breaks: "writes of a worker that owned the host before",
    edits: [
      {
        file: "src/operations/operation-sql.ts",
        find: "h.owner_id = o.worker_id AND h.epoch = o.epoch",
        replace: "h.owner_id = o.worker_id",
      },
    ],
    test: { file: `${OPERATIONS}/workers.test.ts`, title: "its host has a new epoch" },
  },
  {
    name: "no-lease-check",
    breaks: "writes of a worker whose lease is over",
    edits: [
      {
        file: "src/operations/operation-sql.ts",
        find: "WHERE w.id = o.worker_id AND w.lease_expires_at > clock_timestamp()",
        replace: "WHERE w.id = o.worker_id",
      },
    ],
    test: { file: `${OPERATIONS}/workers.test.ts`, title: "its lease ran out" },
  },
  {
    name: "no-monotonic-lease",
    breaks: "calls of a worker that stood still past its lease",
    edits: [
      {
        file: "src/operations/worker-lease.ts",
        find: "Math.max(now.monotonicMs - this.#renewedAt.monotonicMs, now.wallMs - this.#renewedAt.wallMs)",
        replace: "now.wallMs - this.#renewedAt.wallMs",
      },
    ],
    test: { file: `${OPERATIONS}/workers.test.ts`, title: "once its lease is over by its own clock" },
  },
  {
    name: "no-send-deadline",
    breaks: "calls of a worker that was not renewed for a while: others may have given it up",
    edits: [
      {
        file: "src/operations/worker-lease.ts",
        find: "if (this.#sinceRenewalMs() >= this.#sendSeconds * 1000) throw new SendingPaused();",
        replace: "",
      },
    ],
    test: {
      file: `${OPERATIONS}/workers.test.ts`,
      title: "a worker sends nothing while its lease is not renewed",
    },
  },
  {
    name: "reap-by-session-alone",
    breaks: "a worker that lives on while its session is broken",
    edits: [
      {
        file: "src/operations/worker-store.ts",
        find: "(w.sends_until < clock_timestamp() AND NOT EXISTS (",
        replace: "(NOT EXISTS (",
      },
    ],
    test: { file: `${OPERATIONS}/workers.test.ts`, title: "whose session breaks but who renews" },
  },
  {
    name: "no-subject-lock",
    breaks: "the order of operations that are queued at once",
    edits: [
      {
        file: "src/operations/operation-queue.ts",
        find: "sentTogether(lockSubjects(tx, subjects), insert())",
        replace: "sentTogether(Promise.resolve(), insert())",
      },
    ],
    test: { file: `${OPERATIONS}/queue.test.ts`, title: "50 concurrent enqueues on one VM" },
  },
  {
    name: "seq-drawn-before-the-lock",
    breaks: "seq as the order of commits",
    edits: [
      {
        file: "src/operations/operation-queue.ts",
        find: "  const insert = () =>",
        replace:
          "  Object.assign(request, { early: (await tx.$queryRaw`SELECT nextval('operation_seq')::text AS seq`)[0].seq }); " +
          "await tx.$executeRaw`SELECT pg_sleep(random() / 20)`;\n" +
          "  const insert = () =>",
      },
      {
        file: "src/operations/operation-queue.ts",
        find: "drawn AS (SELECT nextval('operation_seq') AS seq),",
        replace: "drawn AS (SELECT ${Reflect.get(request, 'early')}::text::bigint AS seq),",
      },
    ],
    test: { file: `${OPERATIONS}/queue.test.ts`, title: "50 concurrent enqueues on one VM" },
  },
  {
    name: "no-promotion",
    breaks: "what waits behind an operation that ends",
    edits: [
      {
        file: "src/operations/operation-end.ts",
        find: "  if (ended.waited) await promoteWaiting(tx, subjects);\n",
        replace: "",
      },
    ],
    test: {
      file: `${OPERATIONS}/queue.test.ts`,
      title: "lets the next one run; a second time it is too late",
    },
  },
  {
    name: "finds-again-after-it-acted",
    breaks: "the record of what was there before the step acted: its undo would leave the effect",
    edits: [
      {
        file: "src/operations/operation-forward.ts",
        find: "if (step.find === undefined || begun.found !== null) return begun.found;",
        replace: "if (step.find === undefined) return begun.found;",
      },
    ],
    test: { file: `${OPERATIONS}/crash.test.ts`, title: "ends as if nothing had happened after a death at" },
  },
  {
    name: "resumed-is-not-told",
    breaks: "the look before the retry: a step does not know that it may have run",
    edits: [
      {
        file: "src/operations/operation-forward.ts",
        find: "const resumed = run.recorded.has(position);",
        replace: "const resumed = false;",
      },
    ],
    test: { file: `${OPERATIONS}/model.test.ts`, title: "the engine does what its model says" },
  },
  {
    name: "undo-not-decided-first",
    breaks: "the decision to go back, which must outlive the worker",
    edits: [
      {
        file: "src/operations/operation-steps-store.ts",
        find: "UPDATE operation o SET undoing = true, error",
        replace: "UPDATE operation o SET undoing = false, error",
      },
    ],
    test: { file: `${OPERATIONS}/crash.test.ts`, title: "ends as if nothing had happened after a death at" },
  },
  {
    name: "cancel-not-checked-before-a-step",
    breaks: "a cancel whose wake-up was lost",
    edits: [
      {
        file: "src/operations/operation-steps-store.ts",
        find: "WHERE o.cancel_asked_at IS NULL AND NOT place.moves",
        replace: "WHERE NOT place.moves",
      },
    ],
    test: { file: `${OPERATIONS}/workers.test.ts`, title: "a cancel that nobody was woken for" },
  },
  {
    name: "nothing-is-overtaken",
    breaks: "a forced stop behind what hangs",
    edits: [
      {
        file: "src/operations/operation-overtake.ts",
        find: "o.overtakes < ${rank}::int",
        replace: "o.overtakes < ${rank - 9}::int",
      },
    ],
    test: { file: `${OPERATIONS}/queue.test.ts`, title: "a forced stop cancels what is queued before it" },
  },
  {
    name: "takes-while-stopping",
    breaks: "a hand-over: the runner takes again what it has just given up",
    edits: [
      {
        file: "src/operations/operation-runner.ts",
        find: "step: null });\n    // Else a runner that is told to stop while it looks would take again what it has just given up.\n    if (this.#stopped) return;",
        replace: "step: null });",
      },
    ],
    test: { file: `${OPERATIONS}/workers.test.ts`, title: "begins nothing and counts no attempt" },
  },
  {
    name: "runs-by-operation",
    breaks: "a run that took an operation again before its earlier run had ended",
    edits: [
      {
        file: "src/operations/operation-runner.ts",
        find: "this.#runs.delete(operation.token);",
        replace: "this.#runs.delete(operation.id);",
      },
      {
        file: "src/operations/operation-runner.ts",
        find: "this.#runs.set(operation.token, { run, ended });",
        replace: "this.#runs.set(operation.id, { run, ended });",
      },
    ],
    test: { file: `${OPERATIONS}/workers.test.ts`, title: "its old call still hangs knows both" },
  },
  {
    name: "sweeps-twice",
    breaks: "the time for an undo, where two workers find one operation past its deadline",
    edits: [
      {
        file: "src/operations/operation-sweeper.ts",
        find: " || !now.overdue) return false;",
        replace: ") return false;",
      },
    ],
    test: { file: `${OPERATIONS}/sweeper.test.ts`, title: "leave it the time for its undo" },
  },
  {
    name: "events-out-of-order",
    breaks: "the order of commit in the event log",
    edits: [
      {
        file: "src/events/event-sequencer-store.ts",
        find: "row_number() OVER (ORDER BY row_id)",
        replace: "row_number() OVER (ORDER BY row_id DESC)",
      },
    ],
    test: { file: "test/db/events/events.test.ts", title: "concurrent writers and two sequencers" },
  },
  {
    name: "events-with-gaps",
    breaks: "the log without gaps",
    edits: [
      {
        file: "src/events/event-sequencer-store.ts",
        find: "SET seq = newest.seq + waiting.place",
        replace: "SET seq = newest.seq + 2 * waiting.place",
      },
    ],
    test: { file: "test/db/events/events.test.ts", title: "concurrent writers and two sequencers" },
  },
  {
    name: "two-sequencers",
    breaks: "one sequencer at a time",
    edits: [
      {
        file: "src/events/event-sequencer-store.ts",
        find: "return rows[0]?.held === true;",
        replace: "return rows.length === 1;",
      },
    ],
    test: { file: "test/db/events/events.test.ts", title: "only one of two sequencers works" },
  },
];
