import { systemClock } from "../../lib/clock.ts";
import type { LibvirtConnection, Transport } from "../../libvirt-rpc/index.ts";
import type { Call, HostConnection, HostEvent, HostTarget, HypervisorError } from "../hypervisor.ts";
import { consoleLogAbility } from "./console-log.ts";
import { consoleMembers, hostTransportOf, OpenConsoles } from "./consoles.ts";
import { diskHotplugAbility } from "./disk-hotplug.ts";
import { DomainFactCache } from "./domain-fact-cache.ts";
import { observe } from "./domain-lookup.ts";
import * as domains from "./domains.ts";
import { connectionLost } from "./errors.ts";
import { changesDefinition, toHostEvent } from "./events.ts";
import { guestAgentAbility } from "./guest-agent.ts";
import type { HostContext, LibvirtDriverType } from "./host-context.ts";
import { readInventory } from "./inventory.ts";
import { Lanes } from "./lanes.ts";
import { save } from "./managed-save.ts";
import { networkAbility } from "./networks.ts";
import { nicAbility } from "./nics.ts";
import { type Platform, readPlatform } from "./platform.ts";
import { capabilitiesOf, probe } from "./probe.ts";
import { takeScreenshot } from "./screenshot.ts";
import type { OpenConnection } from "./side-connections.ts";
import { downloadVolume } from "./volume-download.ts";
import { volumeAbility } from "./volumes.ts";

/** What a connection is made of, once its main connection is open and its events are subscribed. */
export interface ConnectionParts {
  readonly main: LibvirtConnection;
  readonly open: OpenConnection;
  readonly target: HostTarget;
  readonly driverType: LibvirtDriverType;
  readonly transport: Transport;
}

/** A connected host, by the contract. */
export function hostConnection(parts: ConnectionParts): HostConnection {
  const { main, open, target, driverType, transport } = parts;
  const lanes = new Lanes(main, open);
  const consoles = new OpenConsoles(open);
  const capabilities = capabilitiesOf(driverType, hostTransportOf(transport) !== null);
  const cache = new DomainFactCache(systemClock);
  const platform = rememberPlatform((call) => readPlatform(lanes, driverType, target.accelerator, call));
  const host: HostContext = { calls: lanes, cache, target, driverType, platform: platform.get };
  main.onEvent((event) => {
    if (changesDefinition(event)) cache.drop(event.domain.uuid);
  });
  return {
    probe: async (call) => probe(lanes, capabilities, await platform.readAnew(call), call),
    inventory: (call) => readInventory(host, call),
    observeDomain: (uuid, call) => observe(host, uuid, call),
    defineDomain: (spec, call) => domains.define(host, spec, call),
    startDomain: (uuid, call) => domains.start(host, uuid, call),
    requestShutdown: (uuid, call) => domains.requestShutdown(host, uuid, call),
    forceOffDomain: (uuid, call) => domains.forceOff(host, uuid, call),
    removeDomain: (uuid, call) => domains.remove(host, uuid, call),
    pause: {
      pauseDomain: (uuid, call) => domains.pause(host, uuid, call),
      resumeDomain: (uuid, call) => domains.resume(host, uuid, call),
    },
    rebootDomain: (uuid, call) => domains.reboot(host, uuid, call),
    resetDomain: (uuid, call) => domains.reset(host, uuid, call),
    saveDomain: (uuid, call) => save(host, uuid, call),
    ...(driverType === "TEST"
      ? {}
      : {
          volumes: volumeAbility(lanes),
          diskHotplug: diskHotplugAbility(host),
          downloadVolume: (ref, call) => downloadVolume(lanes, open, ref, call),
          networks: networkAbility(host),
          nics: nicAbility(host),
          guestAgent: guestAgentAbility(lanes),
          consoleLog: consoleLogAbility(host),
          ...consoleMembers(consoles, host, transport),
          takeScreenshot: (uuid, call) => takeScreenshot(host, uuid, call),
        }),
    ...lifecycleOf(main, async () => {
      consoles.close();
      await lanes.close();
    }),
  };
}

type Lifecycle = Pick<HostConnection, "watch" | "onClose" | "close">;

/** Tells of a connection that was lost, once to each listener, and of none that we closed. */
function lifecycleOf(main: LibvirtConnection, closeAll: () => Promise<void>): Lifecycle {
  const listeners = new Set<(error: HypervisorError) => void>();
  let lostBy: HypervisorError | null = null;
  let isClosing = false;
  main.onClose((error) => {
    if (isClosing) return;
    lostBy = connectionLost(error);
    void closeAll();
    for (const listener of listeners) listener(lostBy);
    listeners.clear();
  });
  return {
    watch: (listener: (event: HostEvent) => void) =>
      main.onEvent((event) => {
        const hint = toHostEvent(event);
        if (hint !== null) listener(hint);
      }),
    onClose: (listener) => {
      const lost = lostBy;
      if (lost === null) listeners.add(listener);
      else {
        queueMicrotask(() => {
          listener(lost);
        });
      }
    },
    close: async () => {
      isClosing = true;
      await closeAll();
    },
  };
}

/** Remembers the platform of the last probe; a reading that failed is not remembered. */
function rememberPlatform(read: (call: Call) => Promise<Platform>) {
  let known: Platform | null = null;
  const readAnew = async (call: Call): Promise<Platform> => {
    known = await read(call);
    return known;
  };
  return { get: async (call: Call): Promise<Platform> => known ?? (await readAnew(call)), readAnew };
}
