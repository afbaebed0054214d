import { type HostConnection, type HostDriver, type HostTarget, HypervisorError } from "../hypervisor.ts";
import { CallCounter, SimCalls } from "./sim-calls.ts";
import { simConnection } from "./sim-connection.ts";
import { SimConsoles } from "./sim-console.ts";
import { declaredCapabilities } from "./sim-facts.ts";
import { SimLife, withinLimits } from "./sim-life.ts";
import { type HostRow, READ_HOST } from "./sim-reads-store.ts";
import { SharedWorld } from "./sim-shared-world.ts";
import { canonicalSimUri, parseSimUri, SIM_SCHEMES, type SimSettings } from "./sim-uri.ts";
import { fromDatabase, type SimWorld } from "./sim-world-store.ts";

/**
 * The driver of simulated hosts. Their world lives in the schema `sim` of the given database, on connections that
 * are opened with the first host and closed with the last.
 */
export function createSimDriver(options: { readonly databaseUrl: string }): HostDriver {
  const counter = new CallCounter();
  const worlds = new SharedWorld(options.databaseUrl);
  const consoles = new SimConsoles();
  return {
    name: "sim",
    schemes: SIM_SCHEMES,
    parseUri(uri) {
      const settings = parseSimUri(uri);
      if ("error" in settings) return settings;
      return { hypervisor: settings.hypervisor, uri: canonicalSimUri(settings) };
    },
    declares: declaredCapabilities,
    async connect(target, { signal }) {
      const settings = parseSimUri(target.uri);
      if ("error" in settings) throw new HypervisorError("unreachable", settings.error, { retryable: false });
      const limits = { life: new SimLife(), signal, timeoutMs: null };
      return withinLimits(limits, async (isOver) => {
        const { world, release } = await worlds.acquire();
        const connection = await open({ world, release, settings, target, counter, consoles, signal });
        if (isOver()) await connection.close();
        return connection;
      });
    },
  };
}

interface Opening {
  readonly world: SimWorld;
  readonly release: () => Promise<void>;
  readonly settings: SimSettings;
  readonly target: HostTarget;
  readonly counter: CallCounter;
  readonly consoles: SimConsoles;
  readonly signal: AbortSignal;
}

async function open(opening: Opening): Promise<HostConnection> {
  const life = new SimLife();
  life.onEnd(() => {
    void opening.release();
  });
  try {
    return await openHost(opening, life);
  } catch (error) {
    const { reason, message } = error instanceof HypervisorError ? error : fromDatabase(error);
    // Whatever a host says to somebody who wants to connect, to him it is out of reach.
    const refusal = new HypervisorError(reason === "aborted" ? reason : "unreachable", message, {
      cause: error,
    });
    life.end(refusal);
    throw refusal;
  }
}

async function openHost(opening: Opening, life: SimLife): Promise<HostConnection> {
  const { world, settings, target, counter, consoles, signal, release } = opening;
  const hostId = await world.hostId(canonicalSimUri(settings));
  const watchers = new Set<(uuid: string, detail: string) => void>();
  const breaks = new Breaks(life);
  const unsubscribe = world.subscribe(hostId, (notice) => {
    if (notice.kind === "lost") life.end(notice.error);
    else if (notice.kind === "broken") breaks.told(notice.breaks);
    else for (const watcher of [...watchers]) watcher(notice.uuid, notice.detail);
  });
  life.onEnd(unsubscribe);
  if (world.isLost())
    throw new HypervisorError("unreachable", "the connection to the simulated world was lost");
  const calls = new SimCalls(settings, world, hostId, counter, life);
  // Asked only now that notices arrive: a host that goes down from here on is not missed.
  const call = { signal, timeoutMs: NO_LIMIT_MS, beforeSend: () => undefined };
  breaks.connected((await calls.read<HostRow>("connect", READ_HOST, [], call)).breaks);
  return simConnection({
    settings,
    target,
    calls,
    life,
    onChange(listener) {
      const watcher = (uuid: string, detail: string): void => {
        listener(uuid, detail);
      };
      watchers.add(watcher);
      return () => watchers.delete(watcher);
    },
    settleLater: (uuid, afterMs) => {
      settleLater(world, hostId, uuid, afterMs, life);
    },
    close: release,
    consoles,
  });
}

/** Ends a connection at the first break that is told and came after it was opened. */
class Breaks {
  readonly #life: SimLife;
  #atConnect = Infinity;
  #told = 0;

  constructor(life: SimLife) {
    this.#life = life;
  }

  told(breaks: number): void {
    this.#told = Math.max(this.#told, breaks);
    this.#check();
  }

  connected(breaks: number): void {
    this.#atConnect = breaks;
    this.#check();
  }

  #check(): void {
    if (this.#told <= this.#atConnect) return;
    this.#life.end(new HypervisorError("unreachable", "the simulated host closed the connection"));
  }
}

/** The longest time that a timer takes: connecting is limited by its signal only. */
const NO_LIMIT_MS = 2 ** 31 - 1;

/** The database's clock and ours count from slightly different moments. */
const SETTLE_MARGIN_MS = 50;

/** Readers see a stopped guest without this; it is what tells watchers in time. */
function settleLater(world: SimWorld, hostId: number, uuid: string, afterMs: number, life: SimLife): void {
  const timer = setTimeout(() => {
    if (life.over !== null) return;
    world.settle(hostId, uuid).catch((error: unknown) => {
      const cause = error instanceof HypervisorError ? error : new HypervisorError("failed", String(error));
      if (cause.reason === "unreachable") life.end(cause);
    });
  }, afterMs + SETTLE_MARGIN_MS);
  timer.unref();
}
