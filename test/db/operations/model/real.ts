import { openListener } from "../../../../src/db/listener.ts";
import { startEventSequencer } from "../../../../src/events/event-sequencer.ts";
import type { HostId, OperationId, VmId } from "../../../../src/lib/ids.ts";
import type { OperationKind } from "../../../../src/operations/operation-kind.ts";
import { enqueue } from "../../../../src/operations/operation-queue.ts";
import type { OperationState } from "../../../../src/operations/operation-state.ts";
import { silentLog } from "../../../fixtures/log.ts";
import { createEngine, type Engine, requestFor, type TestInput, type TestWorker, vm } from "../harness.ts";
import type { EngineModel, KindName, Outcome, Spec } from "./engine-model.ts";
import { type PendingCall, World } from "./world.ts";

/** The engine under test with its fake hosts: what commands act on, and how it is compared with the model. */

const HOSTS = 2;
const VMS = 3;
// No lease ends by itself here: commands say whose time is over.
const LEASE = { leaseSeconds: 120, sendSeconds: 60, renewSeconds: 1, reapSeconds: 0.02 };
const LIMITS = { perHost: 100, withoutHost: 100, pollSeconds: 0.05 };
const REST_LIMIT_MS = 60_000;

/** One database with its hosts, used by one run after the other. */
export interface Stage {
  readonly engine: Engine;
  readonly world: World;
  readonly kinds: Readonly<Record<KindName, OperationKind<TestInput>>>;
  /** Never used twice, so that no run meets what an earlier one left. */
  nextKey(): number;
  close(): Promise<void>;
}

export async function openStage(): Promise<Stage> {
  const world = new World();
  const kinds = world.kinds();
  const engine = await createEngine(Object.values(kinds));
  const listener = await openListener({ url: engine.url, logger: silentLog });
  const sequencer = startEventSequencer({
    url: engine.url,
    wakes: listener,
    logger: silentLog,
    pollSeconds: 0.02,
  });
  await engine.db.$executeRaw`CREATE TABLE model_record (operation_id uuid, what text)`;
  for (let index = 0; index < HOSTS; index++) world.hosts.push(await engine.addHost());
  let keys = 0;
  return {
    engine,
    world,
    kinds,
    nextKey: () => ++keys,
    async close() {
      await sequencer.stop();
      await listener.close();
      await engine.close();
    },
  };
}

/** A worker whose own clock can be put forward, as after SIGSTOP and SIGCONT. */
export interface ModelWorker {
  readonly worker: TestWorker;
  passTime(): void;
}

interface Row {
  readonly id: string;
  readonly state: OperationState;
  readonly claimed: boolean;
}

export class Real {
  readonly stage: Stage;
  readonly vms: readonly VmId[] = Array.from({ length: VMS }, () => vm());
  readonly ids = new Map<number, OperationId>();
  readonly workers: ModelWorker[] = [];
  readonly #gone: ModelWorker[] = [];

  constructor(stage: Stage) {
    this.stage = stage;
  }

  async startWorker(silent: ReadonlySet<number>): Promise<void> {
    let passedMs = 0;
    const clock = { now: () => new Date(), monotonicMs: () => performance.now() + passedMs };
    const worker = await this.stage.engine.startWorker({
      lease: { ...LEASE, clock },
      limits: LIMITS,
      silent: [...silent].map((host) => this.hostId(host)),
    });
    this.workers.push({
      worker,
      passTime: () => {
        passedMs = 3_600_000;
      },
    });
  }

  takeAway(index: number): ModelWorker {
    const [taken] = this.workers.splice(index, 1);
    if (taken === undefined) throw new RangeError(`there is no worker ${index}`);
    this.#gone.push(taken);
    return taken;
  }

  hostId(index: number): HostId {
    const id = this.stage.world.hosts[index];
    if (id === undefined) throw new RangeError(`there is no host ${index}`);
    return id;
  }

  idOf(key: number): OperationId {
    const id = this.ids.get(key);
    if (id === undefined) throw new RangeError(`operation ${key} was never queued`);
    return id;
  }

  /** Queues it and returns its place in the order. */
  async enqueue(key: number, spec: Spec): Promise<bigint> {
    const { engine, kinds } = this.stage;
    const subjects = spec.subjects.map(({ vm: index, exclusive }) => ({
      kind: "vm" as const,
      id: this.vms[index] ?? "",
      mode: exclusive ? ("exclusive" as const) : ("shared" as const),
    }));
    const [vmId] = this.vms;
    if (vmId === undefined) throw new RangeError("there is no VM");
    const submission = { vmId, subjects, word: JSON.stringify({ ...spec, key }) };
    const request = requestFor(kinds[spec.kind], submission);
    const { id, seq } = await engine.db.transaction((tx) => enqueue(tx, request, engine.kinds));
    this.ids.set(key, id);
    return seq;
  }

  /** The calls that this worker is in, by what the database says. */
  async callsOf({ worker }: ModelWorker): Promise<PendingCall[]> {
    const rows = await this.stage.engine.db.$queryRaw<{ id: string }[]>`
      SELECT id FROM operation WHERE worker_id = ${worker.lease.workerId}::uuid AND token IS NOT NULL`;
    return this.#callsWith(rows);
  }

  /** The calls under claims on this host. */
  async callsOn(host: number): Promise<PendingCall[]> {
    const rows = await this.stage.engine.db.$queryRaw<{ id: string }[]>`
      SELECT id FROM operation WHERE host_id = ${this.hostId(host)}::uuid AND token IS NOT NULL`;
    return this.#callsWith(rows);
  }

  #callsWith(rows: readonly { readonly id: string }[]): PendingCall[] {
    const ids = new Set(rows.map(({ id }) => id));
    return this.stage.world.calls.filter((call) => !call.zombie && ids.has(call.operationId));
  }

  /** Lets the call of an operation end; a good one takes effect first. */
  answer(key: number, outcome: Outcome): void {
    const call = this.stage.world.callOf(key);
    if (call === undefined) return;
    if (outcome === "success") call.act();
    call.answer(outcome);
  }

  /** Whoever has lost the right to its call tries to act and to go on. */
  wakeZombies(): void {
    const { world } = this.stage;
    for (const call of world.calls.filter(({ zombie }) => zombie)) {
      expectRefusal(world, call);
      call.answer("success");
    }
  }

  /** Waits until everything is as the model says; says what differs where it never is. */
  async rest(model: EngineModel): Promise<void> {
    model.settle();
    const limit = performance.now() + REST_LIMIT_MS;
    for (;;) {
      const differences = await this.#differences(model);
      this.#checkWorld(model);
      if (differences.length === 0) return;
      if (performance.now() > limit)
        throw new Error(`the engine does not come to rest: ${differences.join("; ")}`);
      for (const { worker } of this.workers) worker.runner.wake();
      await new Promise((resolve) => setTimeout(resolve, 3));
    }
  }

  async #differences(model: EngineModel): Promise<string[]> {
    const { engine, world } = this.stage;
    // Pauses between attempts are over at once: how long they are is tested elsewhere.
    await engine.db.$executeRaw`
      UPDATE operation SET not_before = clock_timestamp()
      WHERE ended_at IS NULL AND token IS NULL AND not_before > clock_timestamp()`;
    const rows = await engine.db.$queryRaw<Row[]>`
      SELECT id, state, token IS NOT NULL AS claimed FROM operation WHERE id = ANY(${[...this.ids.values()]}::text[]::uuid[])`;
    const byId = new Map(rows.map((row) => [row.id, row]));
    return [...model.operations.values()].flatMap((operation) => {
      const row = byId.get(this.idOf(operation.key));
      const call = world.callOf(operation.key);
      const wanted = describe(model.stateOf(operation), operation.gate);
      const seen = describe(row?.state, call ?? null);
      if (wanted !== seen) return [`${operation.key} is ${seen} instead of ${wanted}`];
      // With no worker left nobody takes a dead one's claim away.
      const claimed = row?.claimed === true && operation.gate === null && model.workers > 0;
      return claimed ? [`${operation.key} is ${seen}, and claimed`] : [];
    });
  }

  #checkWorld(model: EngineModel): void {
    const { world } = this.stage;
    for (const { key, ...gate } of world.entered.splice(0)) {
      const wanted = model.operations.get(key)?.gate ?? null;
      if (describe("at", wanted) !== describe("at", gate))
        world.violations.push(`${key} began ${describe("at", gate)} instead of ${describe("at", wanted)}`);
    }
    if (world.violations.length > 0) throw new Error(world.violations.splice(0).join("; "));
  }

  /** Ends every worker, the lost ones too. */
  async close(): Promise<void> {
    this.wakeZombies();
    for (const { worker } of this.#gone) await worker.stop();
    for (const { worker } of this.workers) {
      await worker.runner.stop({ drainSeconds: 0 });
      await worker.stop();
    }
  }
}

/** Whoever has lost the right must not reach the host any more. */
export function expectRefusal(world: World, call: PendingCall): void {
  try {
    call.act();
  } catch {
    return;
  }
  world.violations.push(`a worker without the right reached the host for ${call.key}/${call.step}`);
}

function describe(
  state: string | undefined,
  gate: { readonly step: number; readonly direction: string } | null,
): string {
  return gate === null ? String(state) : `${String(state)} in step ${gate.step} ${gate.direction}`;
}
