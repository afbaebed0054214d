import type { InstallationId } from "../../lib/ids.ts";
import {
  type Domain,
  domainGetAutostart,
  domainGetState,
  domainGetXmlDesc,
  domainHasManagedSaveImage,
  domainLookupByUuid,
} from "../../libvirt-rpc/index.ts";
import { type Call, HypervisorError, type ObservedDomain } from "../hypervisor.ts";
import type { DomainFactCache } from "./domain-fact-cache.ts";
import { isNotFound } from "./errors.ts";
import type { HostCalls } from "./lanes.ts";
import { type DomainFacts, parseDomain } from "./parse-domain.ts";
import { type DomainState, isActive, powerOf } from "./power.ts";

/** What is needed to look at domains. */
export interface DomainReader {
  readonly calls: HostCalls;
  readonly cache: DomainFactCache;
}

/** Null when the host says that there is none of this UUID. */
export async function findDomain(calls: HostCalls, uuid: string, call: Call): Promise<Domain | null> {
  const found = await orNull(calls.read(domainLookupByUuid, { uuid }, call));
  return found?.domain ?? null;
}

/** Reads a domain's definition, as it is now. */
export function readFacts(reader: DomainReader, domain: Domain, call: Call): Promise<DomainFacts> {
  return reader.cache.refresh(domain.uuid, async () => {
    const { xml } = await reader.calls.read(domainGetXmlDesc, { domain, flags: 0 }, call);
    return parseDomain(xml);
  });
}

export function readState(calls: HostCalls, domain: Domain, call: Call): Promise<DomainState> {
  return calls.read(domainGetState, { domain, flags: 0 }, call);
}

/** One domain with all that is told of it, or null when it is gone, be it half way. */
export async function observe(
  reader: DomainReader,
  uuid: string,
  call: Call,
): Promise<ObservedDomain | null> {
  const { calls } = reader;
  const domain = await findDomain(calls, uuid, call);
  if (domain === null) return null;
  return await orNull(observeFound(reader, domain, call));
}

async function observeFound(reader: DomainReader, domain: Domain, call: Call): Promise<ObservedDomain> {
  const [state, facts, saved, autostart] = await Promise.all([
    readState(reader.calls, domain, call),
    readFacts(reader, domain, call),
    hasManagedSave(reader.calls, domain, call),
    isAutostarted(reader.calls, domain, call),
  ]);
  return observed(domain, state, facts, { saved, autostart });
}

/** Puts together what is seen of a domain. */
export function observed(
  { uuid, name }: Domain,
  state: DomainState,
  facts: DomainFacts,
  { saved, autostart }: { readonly saved: boolean; readonly autostart: boolean },
): ObservedDomain {
  const { power, reason } = powerOf(state, saved);
  return { uuid, name, power, reason, autostart, ...facts };
}

export async function hasManagedSave(calls: HostCalls, domain: Domain, call: Call): Promise<boolean> {
  const { result } = await calls.read(domainHasManagedSaveImage, { domain, flags: 0 }, call);
  return result === 1;
}

/** A transient domain has no such setting, and says so as an invalid operation. */
async function isAutostarted(calls: HostCalls, domain: Domain, call: Call): Promise<boolean> {
  try {
    return (await calls.read(domainGetAutostart, { domain }, call)).autostart;
  } catch (error) {
    if (error instanceof HypervisorError && error.reason === "invalid-state") return false;
    throw error;
  }
}

/** A domain of ours that a call is about to change. */
export interface OwnDomain {
  readonly domain: Domain;
  readonly state: DomainState;
  readonly active: boolean;
  /** It is off, and libvirt keeps its memory. */
  readonly saved: boolean;
}

/**
 * Finds a domain that a call is about to change, and reads anew whose it is.
 * @throws HypervisorError `not-found`, or `foreign` when it carries another mark or none
 */
export async function findOwnDomain(
  reader: DomainReader,
  uuid: string,
  installationId: InstallationId,
  call: Call,
): Promise<OwnDomain> {
  const domain = await findDomain(reader.calls, uuid, call);
  if (domain === null) throw new HypervisorError("not-found", `the host has no domain ${uuid}`);
  const [state, facts, hasImage] = await Promise.all([
    readState(reader.calls, domain, call),
    readFacts(reader, domain, call),
    hasManagedSave(reader.calls, domain, call),
  ]);
  requireOwn(domain, facts, installationId);
  const active = isActive(state);
  return { domain, state, active, saved: !active && hasImage };
}

export function requireOwn(domain: Domain, facts: DomainFacts, installationId: InstallationId): void {
  if (facts.installationId === installationId) return;
  const whose = facts.installationId === null ? "carries no mark of ours" : "belongs to another installation";
  throw new HypervisorError(
    "foreign",
    `domain '${domain.name}' (${domain.uuid}) ${whose}, so it is not changed`,
  );
}

async function orNull<Result>(promise: Promise<Result>): Promise<Result | null> {
  try {
    return await promise;
  } catch (error) {
    if (isNotFound(error)) return null;
    throw error;
  }
}
