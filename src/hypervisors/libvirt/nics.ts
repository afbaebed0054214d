import { setTimeout as sleep } from "node:timers/promises";
import {
  type Domain,
  domainAttachDeviceFlags,
  domainDetachDeviceFlags,
  domainGetXmlDesc,
} from "../../libvirt-rpc/index.ts";
import { type Call, type DomainNic, HypervisorError, type NicAbility } from "../hypervisor.ts";
import { findOwnDomain } from "./domain-lookup.ts";
import { nicXml } from "./domain-xml.ts";
import type { HostContext } from "./host-context.ts";
import { parseMacAddresses } from "./parse-domain.ts";

/** virDomainDeviceModifyFlags: the guest alone, not its definition. */
const AFFECT_LIVE = 1;
const LOOK_AGAIN_MS = 200;
/** A guest takes out a device within some seconds, or not at all. */
const LET_GO_MS = 30_000;
/** How often a guest is asked: one that was just booting hears nothing. */
const ASK_AGAIN_MS = 10_000;

export function nicAbility(host: HostContext): NicAbility {
  return {
    attachNic: (uuid, nic, call) => attach(host, uuid, nic, call),
    detachNic: (uuid, nic, call) => detach(host, uuid, nic, call),
    listNics: async (uuid, call) => await nicsOf(host, await activeDomain(host, uuid, call), call),
  };
}

async function attach(host: HostContext, uuid: string, nic: DomainNic, call: Call): Promise<void> {
  const domain = await activeDomain(host, uuid, call);
  if ((await nicsOf(host, domain, call)).includes(nic.macAddress)) return;
  const xml = nicXml(nic, await host.platform(call));
  await host.calls.change(domainAttachDeviceFlags, { domain, xml, flags: AFFECT_LIVE }, call);
}

/** The guest is asked, and lets go in its own time: what it has is read again until it is gone. */
async function detach(host: HostContext, uuid: string, nic: DomainNic, call: Call): Promise<void> {
  const domain = await activeDomain(host, uuid, call);
  const until = performance.now() + Math.min(LET_GO_MS, call.timeoutMs);
  let askAt = -Infinity;
  while ((await nicsOf(host, domain, call)).includes(nic.macAddress)) {
    const now = performance.now();
    if (now > until) {
      throw new HypervisorError(
        "busy",
        `the guest of domain '${domain.name}' does not let the network interface ${nic.macAddress} go`,
      );
    }
    if (now >= askAt) {
      await ask(host, domain, nic, call);
      askAt = now + ASK_AGAIN_MS;
    }
    await sleep(LOOK_AGAIN_MS, undefined, { signal: call.signal });
  }
}

/** What is on its way out already, or gone by now, is refused: the next look tells. */
const UNDER_WAY = /in the process of unplug|no device found|not found/i;

async function ask(host: HostContext, domain: Domain, nic: DomainNic, call: Call): Promise<void> {
  const args = { domain, xml: nicXml(nic, await host.platform(call)), flags: AFFECT_LIVE };
  try {
    await host.calls.change(domainDetachDeviceFlags, args, call);
  } catch (error) {
    if (!(error instanceof HypervisorError) || !UNDER_WAY.test(error.message)) throw error;
  }
}

async function nicsOf(host: HostContext, domain: Domain, call: Call): Promise<readonly string[]> {
  const { xml } = await host.calls.read(domainGetXmlDesc, { domain, flags: 0 }, call);
  return parseMacAddresses(xml);
}

async function activeDomain(host: HostContext, uuid: string, call: Call): Promise<Domain> {
  const { domain, active } = await findOwnDomain(host, uuid, host.target.installationId, call);
  if (active) return domain;
  throw new HypervisorError("invalid-state", `domain '${domain.name}' is off`);
}
