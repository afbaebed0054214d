import { setTimeout as sleep } from "node:timers/promises";
import {
  type Domain,
  domainAttachDeviceFlags,
  domainBlockResize,
  domainDetachDeviceFlags,
  domainGetXmlDesc,
} from "../../libvirt-rpc/index.ts";
import { type Call, type DiskHotplugAbility, type DomainDisk, HypervisorError } from "../hypervisor.ts";
import { findOwnDomain } from "./domain-lookup.ts";
import { type DiskSource, diskTarget, diskXml } from "./domain-xml.ts";
import { isNotFound } from "./errors.ts";
import type { HostContext } from "./host-context.ts";
import { type AttachedDisk, parseDisks } from "./parse-disks.ts";
import { sourceOf } from "./spec-paths.ts";
import { volumeAbility } from "./volumes.ts";

/** virDomainModificationImpact: the guest that runs, and its definition. */
const LIVE = 1;
const CONFIG = 2;
/** virDomainXMLFlags: the definition, whatever the guest has. */
const XML_INACTIVE = 2;
/** virDomainBlockResizeFlags. */
const RESIZE_BYTES = 1;

/** libvirt itself waits some seconds for the guest. What comes just after that is waited for too. */
const LOOKS = 8;
const LOOK_EVERY_MS = 250;

/** QEMU's word for a disk that the guest was asked for before and has not let go of yet. */
const ALREADY_ASKED = /already in the process of unplug/i;

/** Disks of guests that are on, by libvirt's hotplug. */
export function diskHotplugAbility(host: HostContext): DiskHotplugAbility {
  return {
    attachDisk: (uuid, disk, call) => attach(host, uuid, disk, call),
    detachDisk: (uuid, disk, call) => detach(host, uuid, disk, call),
    growDisk: (uuid, disk, capacityBytes, call) => grow(host, uuid, disk, capacityBytes, call),
  };
}

/** A guest that is on, with the disks that it has and that its definition has. */
interface Disks {
  readonly domain: Domain;
  readonly live: readonly AttachedDisk[];
  readonly defined: readonly AttachedDisk[];
}

async function disksOf(host: HostContext, uuid: string, call: Call): Promise<Disks> {
  const { domain, active } = await findOwnDomain(host, uuid, host.target.installationId, call);
  if (!active) throw new HypervisorError("invalid-state", `domain '${domain.name}' is off`);
  const [live, defined] = await Promise.all([
    readDisks(host, domain, 0, call),
    readDisks(host, domain, XML_INACTIVE, call),
  ]);
  return { domain, live, defined };
}

async function readDisks(host: HostContext, domain: Domain, flags: number, call: Call) {
  return parseDisks((await host.calls.read(domainGetXmlDesc, { domain, flags }, call)).xml);
}

async function pathOf(host: HostContext, disk: DomainDisk, call: Call): Promise<DiskSource> {
  try {
    return await sourceOf(host.calls, disk.volume, call);
  } catch (error) {
    if (!isNotFound(error)) throw error;
    throw new HypervisorError("invalid-spec", `disk '${disk.name}': its pool or volume is not there`, {
      cause: error,
    });
  }
}

async function attach(host: HostContext, uuid: string, disk: DomainDisk, call: Call): Promise<void> {
  const source = await pathOf(host, disk, call);
  const { domain, live, defined } = await disksOf(host, uuid, call);
  const has = (disks: readonly AttachedDisk[]) => disks.find(({ path }) => path === source.path);
  const flags = (has(live) === undefined ? LIVE : 0) | (has(defined) === undefined ? CONFIG : 0);
  if (flags === 0) return;
  // What came half way the last time gets the target that it has already.
  const target = has(live)?.target ?? has(defined)?.target ?? freeTarget([...live, ...defined]);
  try {
    await host.calls.change(
      domainAttachDeviceFlags,
      { domain, xml: diskXml(disk, source, target), flags },
      call,
    );
  } catch (error) {
    if (!isNotFound(error)) throw error;
    throw new HypervisorError("invalid-spec", `disk '${disk.name}': ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** A target that neither the guest nor its definition uses. */
function freeTarget(disks: readonly AttachedDisk[]): string {
  const used = new Set(disks.map(({ target }) => target));
  for (let index = 0; ; index += 1) if (!used.has(diskTarget(index))) return diskTarget(index);
}

/** The definition keeps the disk until the guest has let go of it: a guest that does not has lost nothing. */
async function detach(host: HostContext, uuid: string, disk: DomainDisk, call: Call): Promise<boolean> {
  const source = await pathOf(host, disk, call);
  const { domain, live, defined } = await disksOf(host, uuid, call);
  const own = ({ path }: AttachedDisk): boolean => path === source.path;
  const inGuest = live.find(own);
  if (inGuest !== undefined) {
    await askGuest(host, domain, diskXml(disk, source, inGuest.target), call);
    const isGone = async () => !(await readDisks(host, domain, 0, call)).some(own);
    if (!(await within(isGone, call))) return false;
  }
  const inDefinition = defined.find(own);
  if (inDefinition !== undefined) {
    const xml = diskXml(disk, source, inDefinition.target);
    await host.calls.change(domainDetachDeviceFlags, { domain, xml, flags: CONFIG }, call);
  }
  return true;
}

async function askGuest(host: HostContext, domain: Domain, xml: string, call: Call): Promise<void> {
  try {
    await host.calls.change(domainDetachDeviceFlags, { domain, xml, flags: LIVE }, call);
  } catch (error) {
    const isAsked = error instanceof HypervisorError && ALREADY_ASKED.test(error.message);
    if (!isAsked) throw error;
  }
}

async function within(holds: () => Promise<boolean>, { signal }: Call): Promise<boolean> {
  for (let look = 1; look <= LOOKS; look += 1) {
    if (await holds()) return true;
    await sleep(LOOK_EVERY_MS, undefined, { signal });
  }
  return await holds();
}

async function grow(
  host: HostContext,
  uuid: string,
  disk: DomainDisk,
  capacityBytes: number,
  call: Call,
): Promise<void> {
  const source = await pathOf(host, disk, call);
  const { domain, live } = await disksOf(host, uuid, call);
  const target = live.find(({ path }) => path === source.path)?.target;
  if (target === undefined)
    throw new HypervisorError("not-found", `domain '${domain.name}' has no disk '${disk.name}'`);
  const seen = await volumeAbility(host.calls).observeVolume(disk.volume, call);
  if (seen !== null && seen.capacityBytes >= capacityBytes) return;
  const args = { domain, disk: target, size: BigInt(capacityBytes), flags: RESIZE_BYTES };
  await host.calls.change(domainBlockResize, args, call);
}
