import { type HostConnection, type HostDriver, type HostTarget, HypervisorError } from "../hypervisor.ts";
import { CallCounter, meetConnectFate, SimCalls } from "./sim-calls.ts";
import { simConnection } from "./sim-connection.ts";
import { declaredCapabilities } from "./sim-facts.ts";
import { SimLife, withinLimits } from "./sim-life.ts";
import { SharedWorld } from "./sim-shared-world.ts";
import { canonicalSimUri, parseSimUri, SIM_SCHEMES, type SimSettings } from "./sim-uri.ts";
import type { SimWorld } from "./sim-world-store.ts";

/**
 * The driver of simulated hosts. Their world lives in the schema `sim` of the given database, on connections that
 * are opened with the first host and closed with the last.
 */
export function createSimDriver(options: { readonly databaseUrl: string }): HostDriver {
  const counter = new CallCounter();
  const worlds = new SharedWorld(options.databaseUrl);
  return {
    name: "sim",
    schemes: SIM_SCHEMES,
    parseUri(uri) {
      const settings = parseSimUri(uri);
      if ("error" in settings) return settings;
      return { hypervisor: settings.hypervisor, uri: canonicalSimUri(settings) };
    },
    declares: declaredCapabilities,
    connect(target, { signal }) {
      const settings = parseSimUri(target.uri);
      if ("error" in settings)
        return Promise.reject(new HypervisorError("unreachable", settings.error, { retryable: false }));
      const limits = { life: new SimLife(), signal, timeoutMs: null };
      return withinLimits(limits, async (isOver) => {
        await meetConnectFate(settings, counter);
        const connection = await open(worlds, settings, target, counter);
        if (isOver()) await connection.close();
        return connection;
      });
    },
  };
}

async function open(
  worlds: SharedWorld,
  settings: SimSettings,
  target: HostTarget,
  counter: CallCounter,
): Promise<HostConnection> {
  const { world, release } = await worlds.acquire();
  try {
    const hostId = await world.hostId(canonicalSimUri(settings));
    return await openHost({ world, hostId, settings, target, counter, release });
  } catch (error) {
    await release();
    throw error;
  }
}

interface HostParts {
  readonly world: SimWorld;
  readonly hostId: number;
  readonly settings: SimSettings;
  readonly target: HostTarget;
  readonly counter: CallCounter;
  readonly release: () => Promise<void>;
}

async function openHost({
  world,
  hostId,
  settings,
  target,
  counter,
  release,
}: HostParts): Promise<HostConnection> {
  const life = new SimLife();
  const watchers = new Set<(uuid: string, detail: string) => void>();
  const unsubscribe = world.subscribe(hostId, (notice) => {
    if (notice.kind === "lost") life.end(notice.error);
    else for (const watcher of [...watchers]) watcher(notice.uuid, notice.detail);
  });
  life.onEnd(() => {
    unsubscribe();
    void release();
  });
  // Asked only now that notices arrive: a host that goes down from here on is not missed.
  if (await world.isDown(hostId)) {
    unsubscribe();
    throw new HypervisorError("unreachable", `the simulated host ${settings.name} is down`);
  }
  return simConnection({
    settings,
    target,
    calls: new SimCalls(settings, world, hostId, counter, life),
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
  });
}

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
