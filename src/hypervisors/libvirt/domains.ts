import {
  connectGetLibVersion,
  type Domain,
  domainCreateWithFlags,
  domainDefineXmlFlags,
  domainDestroyFlags,
  domainLookupByName,
  domainManagedSaveRemove,
  domainReboot,
  domainReset,
  domainResume,
  domainShutdownFlags,
  domainSuspend,
  domainUndefineFlags,
} from "../../libvirt-rpc/index.ts";
import { type Call, type DomainSpec, HypervisorError } from "../hypervisor.ts";
import {
  findDomain,
  findOwnDomain,
  hasManagedSave,
  type OwnDomain,
  readFacts,
  readState,
  requireOwn,
} from "./domain-lookup.ts";
import { domainXml } from "./domain-xml.ts";
import { isInvalidState, isNotFound } from "./errors.ts";
import type { HostContext } from "./host-context.ts";
import { giveUpSaving } from "./managed-save.ts";
import { isActive, isPaused, isRunning } from "./power.ts";
import { resolvePaths } from "./spec-paths.ts";

/** virDomainUndefineFlagsValues. */
const UNDEFINE_MANAGED_SAVE = 1;
const UNDEFINE_SNAPSHOTS = 2;
const UNDEFINE_NVRAM = 4;
const UNDEFINE_CHECKPOINTS = 16;
const UNDEFINE_TPM = 32;

/** libvirt versions that brought an undefine flag, as connectGetLibVersion tells them. */
const HAS_CHECKPOINTS = 5_006_000;
const HAS_TPM_FLAG = 8_009_000;

/** Defines a domain, or replaces our own definition of it. */
export async function define(host: HostContext, spec: DomainSpec, call: Call): Promise<void> {
  const [existing, namesake, platform, paths] = await Promise.all([
    findDomain(host.calls, spec.uuid, call),
    findByName(host, spec.name, call),
    host.platform(call),
    resolvePaths(host.calls, spec, call),
  ]);
  if (existing !== null) {
    requireOwn(existing, await readFacts(host, existing, call), host.target.installationId);
  }
  if (namesake !== null && namesake.uuid !== spec.uuid) {
    throw new HypervisorError(
      "already-exists",
      `the host has another domain named '${spec.name}' (${namesake.uuid})`,
    );
  }
  const xml = domainXml(spec, platform, paths);
  await host.calls.change(domainDefineXmlFlags, { xml, flags: 0 }, call);
  host.cache.drop(spec.uuid);
}

async function findByName(host: HostContext, name: string, call: Call): Promise<Domain | null> {
  try {
    return (await host.calls.read(domainLookupByName, { name }, call)).domain;
  } catch (error) {
    if (isNotFound(error)) return null;
    throw error;
  }
}

export async function start(host: HostContext, uuid: string, call: Call): Promise<void> {
  const { domain, state, active, saved } = await own(host, uuid, call);
  if (active) {
    await giveUpSaving(host, domain, state, call);
    return;
  }
  try {
    // With saved memory it is read back, which takes its time.
    await changeUnless(host, domain, isActive, call, () =>
      host.calls[saved ? "changeSlowly" : "change"](domainCreateWithFlags, { domain, flags: 0 }, call),
    );
  } catch (error) {
    throw startFailure(error);
  }
}

/** The domain is there, so what was not found is what its definition names: a network, a disk, a kernel. */
function startFailure(error: unknown): unknown {
  if (!isNotFound(error) || !(error instanceof HypervisorError)) return error;
  return new HypervisorError("invalid-spec", `the domain does not start: ${error.message}`, {
    cause: error,
    ...(error.details === undefined ? {} : { details: error.details }),
  });
}

export async function requestShutdown(host: HostContext, uuid: string, call: Call): Promise<void> {
  const { domain, active } = await own(host, uuid, call);
  if (!active) return;
  await changeUnless(host, domain, isInactive, call, () =>
    host.calls.change(domainShutdownFlags, { domain, flags: 0 }, call),
  );
}

export async function forceOff(host: HostContext, uuid: string, call: Call): Promise<void> {
  const { domain, active, saved } = await own(host, uuid, call);
  if (active) {
    await changeUnless(host, domain, isInactive, call, () =>
      host.calls.change(domainDestroyFlags, { domain, flags: 0 }, call),
    );
  }
  // A save that was under way may have come to its end first.
  if (active ? await hasManagedSave(host.calls, domain, call) : saved)
    await host.calls.change(domainManagedSaveRemove, { domain, flags: 0 }, call);
}

export async function remove(host: HostContext, uuid: string, call: Call): Promise<void> {
  const found = await ownOrNull(host, uuid, call);
  if (found === null) return;
  if (found.active) throw invalidState(found.domain, "is on; it must be off to be removed");
  const flags = await undefineFlags(host, call);
  try {
    await host.calls.change(domainUndefineFlags, { domain: found.domain, flags }, call);
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
  host.cache.drop(uuid);
}

export async function pause(host: HostContext, uuid: string, call: Call): Promise<void> {
  const { domain, state, active } = await own(host, uuid, call);
  if (!active) throw invalidState(domain, "is off and cannot be paused");
  if (isPaused(state)) return;
  await changeUnless(host, domain, isPaused, call, () => host.calls.change(domainSuspend, { domain }, call));
}

export async function resume(host: HostContext, uuid: string, call: Call): Promise<void> {
  const { domain, state, active } = await own(host, uuid, call);
  if (!active) throw invalidState(domain, "is off and cannot be resumed");
  if (isRunning(state)) return;
  await changeUnless(host, domain, isRunning, call, () => host.calls.change(domainResume, { domain }, call));
}

export async function reboot(host: HostContext, uuid: string, call: Call): Promise<void> {
  const { domain, active } = await own(host, uuid, call);
  if (!active) throw invalidState(domain, "is off and cannot be rebooted");
  await host.calls.change(domainReboot, { domain, flags: 0 }, call);
}

export async function reset(host: HostContext, uuid: string, call: Call): Promise<void> {
  const { domain, active } = await own(host, uuid, call);
  if (!active) throw invalidState(domain, "is off and cannot be reset");
  await host.calls.change(domainReset, { domain, flags: 0 }, call);
}

function own(host: HostContext, uuid: string, call: Call): Promise<OwnDomain> {
  return findOwnDomain(host, uuid, host.target.installationId, call);
}

async function ownOrNull(host: HostContext, uuid: string, call: Call): Promise<OwnDomain | null> {
  try {
    return await own(host, uuid, call);
  } catch (error) {
    if (isNotFound(error)) return null;
    throw error;
  }
}

function isInactive(state: Parameters<typeof isActive>[0]): boolean {
  return !isActive(state);
}

/** Makes a change; when the host says that the state does not allow it, looks whether it was reached meanwhile. */
async function changeUnless(
  host: HostContext,
  domain: Domain,
  reached: typeof isActive,
  call: Call,
  change: () => Promise<unknown>,
): Promise<void> {
  try {
    await change();
  } catch (error) {
    if (!isInvalidState(error) || !reached(await readState(host.calls, domain, call))) throw error;
  }
}

/** All that belongs to a definition. The mock knows the first two flags only, and a libvirt only those of its time. */
async function undefineFlags(host: HostContext, call: Call): Promise<number> {
  const flags = UNDEFINE_MANAGED_SAVE | UNDEFINE_SNAPSHOTS;
  if (host.driverType === "TEST") return flags;
  const { libVer } = await host.calls.read(connectGetLibVersion, undefined, call);
  return (
    flags |
    UNDEFINE_NVRAM |
    (libVer >= HAS_CHECKPOINTS ? UNDEFINE_CHECKPOINTS : 0) |
    (libVer >= HAS_TPM_FLAG ? UNDEFINE_TPM : 0)
  );
}

function invalidState(domain: Domain, what: string): HypervisorError {
  return new HypervisorError("invalid-state", `domain '${domain.name}' ${what}`);
}
