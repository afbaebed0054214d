import type { Call, HostConnection, HostTarget } from "../hypervisor.ts";
import { consoleLogAbility } from "./console-log.ts";
import type { OpenConsoles } from "./consoles.ts";
import { observe } from "./domain-look.ts";
import * as domains from "./domains.ts";
import type { HostContext } from "./host-context.ts";
import type { HostLink } from "./host-link.ts";
import { hostVolumes } from "./host-volumes.ts";
import { readInventory } from "./inventory.ts";
import { type HostFindings, probe } from "./probe.ts";
import type { Runner } from "./runner.ts";
import type { XlUri } from "./uri.ts";
import { HostWatch } from "./watch.ts";

/** What a connection is made of, once the host has let us in and was looked at. */
export interface ConnectionParts {
  readonly runner: Runner;
  readonly link: HostLink;
  readonly target: HostTarget;
  readonly uri: XlUri;
  readonly findings: HostFindings;
  readonly consoles: OpenConsoles;
}

/** A connected host, by the contract. */
export function hostConnection({
  runner,
  link,
  target,
  uri,
  findings,
  consoles,
}: ConnectionParts): HostConnection {
  const { installationId } = target;
  const watch = new HostWatch({ link, installationId }, runner.over);
  const host: HostContext = {
    link,
    installationId,
    pools: uri.pools,
    networks: uri.networks,
    defaultBridge: findings.defaultBridge,
    consoleLogs: findings.consoleLogs?.logDirectory ?? null,
    changed: (uuid, detail) => {
      watch.tell(uuid, detail);
    },
  };
  return {
    probe: async (call) => (await probe(link, call)).facts,
    inventory: (call) => readInventory(host, call),
    observeDomain: (uuid, call) => observe(host, uuid, call),
    defineDomain: (spec, call) => domains.define(host, spec, call),
    ...powerCalls(host),
    removeDomain: (uuid, call) => domains.remove(host, uuid, call),
    volumes: hostVolumes(link, uri.pools),
    ...consoleLogOf(host),
    ...consoles.members(findings.facts.guestTypes),
    watch: (listener) => watch.add(listener),
    onClose: (listener) => {
      runner.onClose(listener);
    },
    close: async () => {
      consoles.close();
      await runner.close();
    },
  };
}

function powerCalls(host: HostContext) {
  const change =
    (kind: Parameters<typeof domains.changePower>[1]) =>
    (uuid: string, call: Call): Promise<void> =>
      domains.changePower(host, kind, uuid, call);
  return {
    startDomain: change("start"),
    requestShutdown: change("shutdown"),
    forceOffDomain: change("off"),
    pause: { pauseDomain: change("pause"), resumeDomain: change("resume") },
    rebootDomain: change("reboot"),
    resetDomain: change("reset"),
    saveDomain: change("save"),
  };
}

function consoleLogOf(host: HostContext): Pick<HostConnection, "consoleLog"> | Record<string, never> {
  if (host.consoleLogs === null) return {};
  const consoleLog = consoleLogAbility(host.link, {
    directory: host.consoleLogs,
    refuseForeign: (domain, call) => domains.refuseForeign(host, domain, call),
  });
  return { consoleLog };
}
