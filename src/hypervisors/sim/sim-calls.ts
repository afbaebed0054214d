import { type Call, HypervisorError, type HypervisorErrorReason } from "../hypervisor.ts";
import { type Fate, fateOf } from "./sim-fate.ts";
import { limitsOf, type SimLife, withinLimits } from "./sim-life.ts";
import { type ReadRow, TAKE_FAULT } from "./sim-reads-store.ts";
import type { SimSettings } from "./sim-uri.ts";
import { functionQuery, type SimWorld, type WorldQuery } from "./sim-world-store.ts";

/** The kinds of calls that a simulated host can be told to fail, delay or hang. */
export const SIM_CALLS = [
  "connect",
  "probe",
  "inventory",
  "observeDomain",
  "defineDomain",
  "startDomain",
  "requestShutdown",
  "forceOffDomain",
  "removeDomain",
  "pauseDomain",
  "resumeDomain",
  "rebootDomain",
  "resetDomain",
  "saveDomain",
  "observeVolume",
  "createVolume",
  "uploadVolume",
  "growVolume",
  "deleteVolume",
  "listVolumes",
  "attachDisk",
  "detachDisk",
  "growDisk",
  "ensureNetwork",
  "removeNetwork",
  "observeNetwork",
  "reserveAddress",
  "releaseAddress",
  "attachNic",
  "detachNic",
  "listNics",
  "askAgent",
  "copyVolume",
  "overlayVolume",
  "digestVolume",
  "readConsoleLog",
  "deleteConsoleLog",
  "openSerialConsole",
] as const;
export type SimCall = (typeof SIM_CALLS)[number];

/** Counts calls, per host and kind, from the start of the process: which call is the n-th decides its fate. */
export class CallCounter {
  readonly #counts = new Map<string, number>();

  next(settings: SimSettings, kind: SimCall): Fate {
    // Rates are of calls over a connection: connecting has its latency, and fails only where that is ordered.
    const rates = kind === "connect" ? { failRate: 0, hangRate: 0, loseAnswerRate: 0 } : {};
    const key = `${settings.hypervisor} ${settings.name} ${kind}`;
    const n = this.#counts.get(key) ?? 0;
    this.#counts.set(key, n + 1);
    return fateOf({ ...settings, ...rates }, kind, n);
  }
}

/** What a changing call is answered: the composite type sim.answer. */
interface AnswerRow {
  readonly error: string | null;
  readonly message: string | null;
  readonly fault: string | null;
  readonly value: unknown;
}

const NO_ANSWER: AnswerRow = {
  error: "failed",
  message: "the simulated world gave no answer",
  fault: null,
  value: null,
};

/** The calls of one connection: each meets its latency and its fate, then the world. */
export class SimCalls {
  readonly #settings: SimSettings;
  readonly #world: SimWorld;
  readonly #hostId: number;
  readonly #counter: CallCounter;
  readonly #life: SimLife;

  constructor(settings: SimSettings, world: SimWorld, hostId: number, counter: CallCounter, life: SimLife) {
    this.#settings = settings;
    this.#world = world;
    this.#hostId = hostId;
    this.#counter = counter;
    this.#life = life;
  }

  /** A call that changes the host: one function of the world, whose first arguments are the host and the call. */
  change(kind: SimCall, fn: string, args: readonly unknown[], call: Call): Promise<unknown> {
    const query = functionQuery(fn, [this.#hostId, kind, ...args]);
    return this.#meetFate(kind, call, async (isOver) => {
      const rows = await this.#run<AnswerRow>(query, () => {
        if (isOver()) throw new NotSent();
        call.beforeSend();
      });
      const { error, message, fault, value } = rows[0] ?? NO_ANSWER;
      if (error !== null) return this.#failWith(error, message);
      return fault === null ? value : this.#failWith(fault, null);
    });
  }

  /** A call that only looks. `text` selects the columns of ReadRow and its own; $1 is the host. No row: the host is gone. */
  read<Row extends ReadRow>(kind: SimCall, text: string, args: readonly unknown[], call: Call): Promise<Row> {
    return this.#meetFate(kind, call, async (isOver) => {
      const stopIfOver = (): void => {
        if (isOver()) throw new NotSent();
      };
      const query = { name: `sim-${kind}`, text, values: [this.#hostId, ...args] };
      const row = (await this.#run<Row>(query, stopIfOver))[0];
      if (row === undefined || row.down) return this.#failWith("unreachable", "the simulated host is down");
      if (row.hasFaults) {
        const take = { name: "sim-take-fault", text: TAKE_FAULT, values: [this.#hostId, kind] };
        const faults = await this.#run<{ fault: string | null }>(take, stopIfOver);
        const fault = faults[0]?.fault ?? null;
        if (fault !== null) return this.#failWith(fault, null);
      }
      return row;
    });
  }

  /** A world out of reach ends the connection, as a host out of reach does. */
  async #run<Row extends object>(query: WorldQuery, beforeSend: () => void): Promise<readonly Row[]> {
    try {
      return await this.#world.run<Row>(query, beforeSend);
    } catch (error) {
      if (error instanceof HypervisorError && error.reason === "unreachable") this.#life.end(error);
      throw error;
    }
  }

  /** Half of the latency lies before the effect and half behind it: a call given up in between may have happened. */
  #meetFate<T>(kind: SimCall, call: Call, act: (isOver: () => boolean) => Promise<T>): Promise<T> {
    const fate = this.#counter.next(this.#settings, kind);
    return withinLimits(limitsOf(this.#life, call), async (isOver) => {
      await pause(fate.latencyMs / 2);
      if (isOver()) throw new NotSent();
      if (fate.outcome === "hang" || fate.outcome === "fail") return this.#failWith(fate.outcome, null);
      const value = await act(isOver);
      await pause(fate.latencyMs / 2);
      return fate.outcome === "lose-answer" ? this.#failWith(fate.outcome, null) : value;
    });
  }

  /** Rejects as the outcome says, or never answers. A host that is gone takes the connection with it. */
  #failWith(outcome: string, message: string | null): Promise<never> {
    if (outcome === "hang") return new Promise(() => undefined);
    const error = errorOf(outcome, message);
    if (error.reason === "unreachable") this.#life.end(error);
    return Promise.reject(error);
  }
}

/** Nobody waits for this call any more, so it is not sent. Seen by no caller. */
class NotSent extends Error {}

function errorOf(outcome: string, message: string | null): HypervisorError {
  if (outcome === "fail")
    return new HypervisorError("failed", message ?? "the simulated host failed this call");
  if (outcome === "lose-answer") {
    return new HypervisorError("failed", "the simulated host lost the answer of a call that took effect");
  }
  return new HypervisorError(outcome as HypervisorErrorReason, message ?? outcome);
}

function pause(ms: number): Promise<void> {
  return ms < 1 ? Promise.resolve() : new Promise((resolve) => setTimeout(resolve, ms));
}
