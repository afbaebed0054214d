import {
  type Call,
  type ConsoleLogAbility,
  type DomainSpec,
  type HostConnection,
  type HostEvent,
  type HostInventory,
  type HostTarget,
  HypervisorError,
  type ObservedDomain,
} from "../hypervisor.ts";
import type { SimCalls } from "./sim-calls.ts";
import { type SimConsoles, serialConsoleOf } from "./sim-console.ts";
import { renderConsoleLog } from "./sim-console-log.ts";
import { simDiskHotplug } from "./sim-disk-hotplug.ts";
import { domain0Of, ownMemoryMibOf, refuseDomain0 } from "./sim-domain-0.ts";
import { type DomainTuple, definitionOf, observedDomainOf } from "./sim-domains.ts";
import { memoryMibOf, SIM_POOL, simHostFacts, simNetwork, simUuid } from "./sim-facts.ts";
import { simAgentState, simGuestAgent } from "./sim-guest-agent.ts";
import type { SimLife } from "./sim-life.ts";
import { observedNetworkOf, simNetworkAbility, simNicAbility } from "./sim-networks.ts";
import { POWER_RULES, type PowerCall, type PowerRule } from "./sim-power.ts";
import {
  type ConsoleRow,
  type DomainRow,
  type InventoryRow,
  READ_CONSOLE,
  READ_DOMAIN,
  READ_HOST,
  READ_INVENTORY,
} from "./sim-reads-store.ts";
import type { SimSettings } from "./sim-uri.ts";
import { requirePool, simPoolBytes, simPoolPath, simVolumes } from "./sim-volumes.ts";

/** What a connection to a simulated host is made of. */
export interface SimConnectionParts {
  readonly settings: SimSettings;
  readonly target: HostTarget;
  readonly calls: SimCalls;
  readonly life: SimLife;
  /** Tells the listener of every change of a domain of this host. Returns how to stop. */
  readonly onChange: (listener: (uuid: string, detail: string) => void) => () => void;
  /** Writes down, after this many milliseconds, that a guest has stopped. */
  readonly settleLater: (uuid: string, afterMs: number) => void;
  readonly close: () => Promise<void>;
  readonly consoles: SimConsoles;
}

/** A connection to a simulated host. Everything it knows is in the world: it keeps nothing itself. */
export function simConnection(parts: SimConnectionParts): HostConnection {
  const { settings, target, calls, life } = parts;
  const changePower = powerChanger(parts);
  return {
    async probe(call) {
      await calls.read("probe", READ_HOST, [], call);
      return simHostFacts(settings, target.accelerator);
    },
    async inventory(call) {
      return inventoryOf(settings, await calls.read<InventoryRow>("inventory", READ_INVENTORY, [], call));
    },
    async observeDomain(uuid, call): Promise<ObservedDomain | null> {
      const { domain } = await calls.read<DomainRow>("observeDomain", READ_DOMAIN, [uuid], call);
      if (domain !== null) return observedIn(settings, domain);
      return domain0Of(settings).find((own) => own.uuid === uuid) ?? null;
    },
    async defineDomain(spec, call) {
      refuseDomain0(settings, spec.uuid);
      requireOwn(spec, target);
      const definition = definitionOf(spec, settings.hypervisor);
      const args = [spec.uuid, spec.name, spec.installationId, spec.uuid, JSON.stringify(definition)];
      await calls.change("defineDomain", "define_domain", args, call);
    },
    startDomain: (uuid, call) => changePower("startDomain", uuid, call),
    requestShutdown: (uuid, call) => changePower("requestShutdown", uuid, call),
    forceOffDomain: (uuid, call) => changePower("forceOffDomain", uuid, call),
    async removeDomain(uuid, call) {
      refuseDomain0(settings, uuid);
      await calls.change("removeDomain", "remove_domain", [uuid, target.installationId], call);
    },
    watch: (listener) => watch(parts, listener),
    onClose(listener) {
      if (life.over !== null && !(life.over instanceof ClosedByUs))
        queueMicrotask(listener.bind(null, life.over));
      life.onEnd((error) => {
        if (!(error instanceof ClosedByUs)) listener(error);
      });
    },
    async close() {
      life.end(new ClosedByUs("unreachable", "the connection was closed"));
      await parts.close();
    },
    pause: {
      pauseDomain: (uuid, call) => changePower("pauseDomain", uuid, call),
      resumeDomain: (uuid, call) => changePower("resumeDomain", uuid, call),
    },
    rebootDomain: (uuid, call) => changePower("rebootDomain", uuid, call),
    resetDomain: (uuid, call) => changePower("resetDomain", uuid, call),
    saveDomain: (uuid, call) => changePower("saveDomain", uuid, call),
    volumes: simVolumes(settings, calls, life),
    nics: simNicAbility(calls, target),
    // As on real Xen hosts, see sim-facts.ts.
    ...(settings.hypervisor === "kvm"
      ? {
          networks: simNetworkAbility(calls, target),
          guestAgent: simGuestAgent(settings, calls),
          diskHotplug: simDiskHotplug(target, calls),
        }
      : {}),
    consoleLog: consoleLogOf(calls, target),
    openSerialConsole: serialConsoleOf(parts),
  };
}

/** The end that the caller asked for: not a loss, so nobody is told. */
class ClosedByUs extends HypervisorError {}

function powerChanger({ settings, target, calls, settleLater }: SimConnectionParts) {
  return async (kind: PowerCall, uuid: string, call: Call): Promise<void> => {
    refuseDomain0(settings, uuid);
    const rule = { ...POWER_RULES[kind], ...ownRuleOf(settings, kind) };
    const afterMs = kind === "requestShutdown" ? settings.guestStopMs : 0;
    const args = [uuid, target.installationId, JSON.stringify(rule), guestMemoryMibOf(settings), afterMs];
    await calls.change(kind, "change_power", args, call);
    if (afterMs > 0) settleLater(uuid, afterMs);
  };
}

/** What of a call is this host's own. */
function ownRuleOf({ hypervisor, rebootGapMs }: SimSettings, kind: PowerCall): Partial<PowerRule> {
  if (kind === "rebootDomain") return { absentMs: rebootGapMs };
  // Of Xen's guests only fully virtual ones have a reset button.
  return hypervisor === "xen" && kind === "resetDomain" ? { guestTypes: ["hvm"] } : {};
}

function guestMemoryMibOf(settings: SimSettings): number {
  return memoryMibOf(settings) - ownMemoryMibOf(settings);
}

function inventoryOf(settings: SimSettings, row: InventoryRow): HostInventory {
  const capacityBytes = simPoolBytes(settings);
  return {
    domains: [...domain0Of(settings), ...row.domains.map((domain) => observedIn(settings, domain))],
    networks: [simNetwork(settings), ...row.networks.map(observedNetworkOf)],
    pools: [
      {
        name: SIM_POOL,
        uuid: simUuid(`pool ${settings.hypervisor} ${settings.name} ${SIM_POOL}`),
        active: true,
        type: "dir",
        path: simPoolPath(settings),
        capacityBytes,
        availableBytes: Math.max(0, capacityBytes - row.takenBytes),
      },
    ],
    memoryFreeMib: Math.max(0, guestMemoryMibOf(settings) - row.usedMemoryMib),
    addresses: row.addresses.map(({ macAddress, ipv4Address }) => ({
      macAddress,
      address: ipv4Address,
      source: "lease",
    })),
  };
}

function observedIn(settings: SimSettings, tuple: DomainTuple): ObservedDomain {
  const domain = observedDomainOf(tuple);
  return settings.hypervisor === "kvm" ? { ...domain, agent: simAgentState(settings, domain.power) } : domain;
}

function requireOwn(spec: DomainSpec, target: HostTarget): void {
  if (spec.installationId !== target.installationId) {
    throw new HypervisorError(
      "foreign",
      `the specification of ${spec.name} carries another installation's mark`,
    );
  }
}

/** Xen's own toolstack tells of nothing by itself: there, only the inventory shows a change. */
function watch(parts: SimConnectionParts, listener: (event: HostEvent) => void): () => void {
  if (parts.settings.hypervisor === "xen") return () => undefined;
  return parts.onChange((uuid, detail) => {
    listener({ kind: "domain-changed", uuid, detail });
  });
}

function consoleLogOf(calls: SimCalls, target: HostTarget): ConsoleLogAbility {
  return {
    async readConsoleLog(domain, maxBytes, call) {
      requirePool(domain.pool);
      const { entries } = await calls.read<ConsoleRow>("readConsoleLog", READ_CONSOLE, [domain.uuid], call);
      const bytes = Buffer.from(renderConsoleLog(entries));
      return bytes.subarray(Math.max(0, bytes.length - maxBytes));
    },
    async deleteConsoleLog(domain, call) {
      requirePool(domain.pool);
      await calls.change(
        "deleteConsoleLog",
        "delete_console_log",
        [domain.uuid, target.installationId],
        call,
      );
    },
  };
}
