import { setTimeout as sleep } from "node:timers/promises";
import type { InstallationId } from "../../lib/ids.ts";
import type { Call, ObservedDomain } from "../hypervisor.ts";
import type { HostLink } from "./host-link.ts";
import { type DomainsSeen, type FoundDefinition, parseDomains } from "./parse-domains.ts";
import { findListed, type ListedDomain } from "./parse-list.ts";
import { type PowerFacts, powerOf } from "./power.ts";

/** What is needed to look at domains. */
export interface DomainReader {
  readonly link: HostLink;
  readonly installationId: InstallationId;
}

/** How often and how long a domain in between is looked at again, before it is told of as it is. */
const LOOKS_AGAIN = 12;
const BETWEEN_LOOKS_MS = 400;

interface Sighting {
  readonly domain: ObservedDomain;
  readonly isPassing: boolean;
  /** Differs between two looks where something happened: a guest that rebooted is another domain of Xen's. */
  readonly mark: string;
}

/** All domains of the host. Those in between are looked at again, until they are on or off. */
export async function lookAtAll(reader: DomainReader, call: Call): Promise<readonly ObservedDomain[]> {
  const sightings = sightingsIn(await see(reader, "*", call));
  const settled = await Promise.all(
    sightings.map(async ({ domain, isPassing }) =>
      isPassing ? await observe(reader, domain.uuid, call) : domain,
    ),
  );
  return settled.filter((domain) => domain !== null);
}

/** One domain, or null where the host has none of this UUID. */
export async function observe(
  reader: DomainReader,
  uuid: string,
  call: Call,
): Promise<ObservedDomain | null> {
  for (let looks = 0; ; looks += 1) {
    const sighting = sightingsIn(await see(reader, uuid, call)).find(({ domain }) => domain.uuid === uuid);
    if (sighting === undefined) return null;
    if (!sighting.isPassing || looks === LOOKS_AGAIN) return sighting.domain;
    await sleep(BETWEEN_LOOKS_MS, undefined, { signal: call.signal }).catch(() => undefined);
  }
}

/** What one look shows, without waiting for what is in between. */
export async function see(reader: DomainReader, uuid: string, call: Call): Promise<DomainsSeen> {
  return parseDomains(await reader.link.tell("domains", [uuid], call), reader.installationId);
}

/** Every domain once: those that are defined, and those that run without a definition. Pure. */
export function sightingsIn(seen: DomainsSeen): readonly Sighting[] {
  const defined = seen.definitions.map((definition) => definedDomain(definition, seen));
  const known = new Set(seen.definitions.map(({ uuid }) => uuid));
  const strangers = new Set(seen.listed.map(({ uuid }) => uuid).filter((uuid) => !known.has(uuid)));
  return [
    ...defined,
    ...[...strangers].flatMap((uuid) => {
      const listed = findListed(seen.listed, uuid);
      return listed === null ? [] : [unmanagedDomain(listed)];
    }),
  ];
}

function definedDomain(definition: FoundDefinition, seen: DomainsSeen): Sighting {
  const { uuid, installationId, isSaved } = definition;
  const listed = findListed(seen.listed, uuid);
  // A definition that was replaced shows at the next start.
  const spec = (listed !== null || isSaved ? definition.startedAs : null) ?? definition.spec;
  const isPausedByUs = listed !== null && seen.pausedByUs.get(uuid) === listed.domid;
  const facts = powerOf({ listed, isSaved, isServed: seen.served.has(uuid) && !isPausedByUs });
  return sighting(listed, facts, {
    uuid,
    name: spec?.name ?? listed?.name ?? uuid,
    cpuCount: spec?.cpuCount ?? listed?.cpuCount ?? 1,
    memoryMib: spec?.memoryMib ?? listed?.memoryMib ?? 0,
    installationId,
    vmId: uuid,
  });
}

/** Nobody's, as far as we know: what xl tells of it is all there is. */
function unmanagedDomain(listed: ListedDomain): Sighting {
  const { uuid, name, cpuCount, memoryMib } = listed;
  return sighting(listed, powerOf({ listed, isSaved: false, isServed: null }), {
    uuid,
    name: name ?? uuid,
    cpuCount,
    memoryMib,
    installationId: null,
    vmId: null,
  });
}

function sighting(
  listed: ListedDomain | null,
  { power, reason, isPassing }: PowerFacts,
  about: Omit<ObservedDomain, "power" | "reason" | "autostart">,
): Sighting {
  return {
    domain: { ...about, power, reason, autostart: false },
    isPassing,
    mark: [listed?.domid, power, reason].join(" "),
  };
}
