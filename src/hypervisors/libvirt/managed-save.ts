import { type Domain, domainAbortJob, domainGetJobInfo, domainManagedSave } from "../../libvirt-rpc/index.ts";
import { type Call, HypervisorError } from "../hypervisor.ts";
import { findOwnDomain, hasManagedSave, readState } from "./domain-lookup.ts";
import { isBusy, isInvalidState } from "./errors.ts";
import type { HostContext } from "./host-context.ts";
import { type DomainState, isActive, isPaused, powerOf } from "./power.ts";

/** virDomainSaveRestoreFlags: whatever it was, the guest runs when it is brought back. */
const SAVE_RUNNING = 2;

/** Has libvirt keep a guest's memory on the host's disk (a managed save) and switch it off. */
export async function save(host: HostContext, uuid: string, call: Call): Promise<void> {
  const { domain, state, active, saved } = await findOwnDomain(host, uuid, host.target.installationId, call);
  if (saved) return;
  const { power } = powerOf(state, false);
  if (!active || power === "crashed") {
    const what = power === "crashed" ? "has crashed" : "is off";
    throw new HypervisorError("invalid-state", `domain '${domain.name}' ${what}: there is no memory to save`);
  }
  const until = performance.now() + call.timeoutMs;
  while (!(await saveOnce(host, domain, call))) {
    if (performance.now() >= until) {
      throw new HypervisorError("busy", `domain '${domain.name}' is being saved by an earlier call still`);
    }
  }
}

/**
 * False: an earlier save is under way, one whose caller is gone. libvirtd goes on with it, and lets a second one wait for
 * half a minute before it says so.
 */
async function saveOnce(host: HostContext, domain: Domain, call: Call): Promise<boolean> {
  try {
    await host.calls.changeSlowly(domainManagedSave, { domain, flags: SAVE_RUNNING }, call);
    return true;
  } catch (error) {
    if (!isBusy(error) && !isInvalidState(error)) throw error;
    const state = await readState(host.calls, domain, call);
    if (!isActive(state)) {
      if (await hasManagedSave(host.calls, domain, call)) return true;
      throw error;
    }
    if (!(await isBeingSaved(host, domain, state, call))) throw error;
    return false;
  }
}

/** Ends a save that is under way, so that the guest goes on; what is not being saved is left alone. */
export async function giveUpSaving(
  host: HostContext,
  domain: Domain,
  state: DomainState,
  call: Call,
): Promise<void> {
  if (!(await isBeingSaved(host, domain, state, call))) return;
  try {
    await host.calls.change(domainAbortJob, { domain }, call);
  } catch (error) {
    // It came to its end by itself.
    if (!isInvalidState(error)) throw error;
  }
  // The guest goes on in a moment, or is saved after all: whoever asks again sees which.
  throw new HypervisorError("busy", `domain '${domain.name}' was being saved, which was just given up`);
}

/** The guest's CPUs stand still while its memory is written. The mock has no jobs. */
async function isBeingSaved(
  host: HostContext,
  domain: Domain,
  state: DomainState,
  call: Call,
): Promise<boolean> {
  if (!isPaused(state) || host.driverType === "TEST") return false;
  return (await host.calls.read(domainGetJobInfo, { domain }, call)).type !== 0;
}
