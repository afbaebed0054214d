import {
  connectGetLibVersion,
  type Network,
  networkCreate,
  networkDefineXml,
  networkDestroy,
  networkGetXmlDesc,
  networkIsActive,
  networkLookupByName,
  networkLookupByUuid,
  networkSetAutostart,
  networkUndefine,
  networkUpdate,
} from "../../libvirt-rpc/index.ts";
import {
  type Call,
  HypervisorError,
  type NetworkAbility,
  type NetworkSpec,
  type NetworkState,
  type StaticLease,
} from "../hypervisor.ts";
import { isInvalidState, isNotFound } from "./errors.ts";
import type { HostContext } from "./host-context.ts";
import { KeyedLock } from "./keyed-lock.ts";
import { leaseXml, networkXml } from "./network-xml.ts";
import { type NetworkOwnership, parseNetworkOwnership } from "./parse-network.ts";

/** virNetworkXMLFlags and virNetworkUpdateFlags: each of the two definitions that an active network has. */
const DEFINITIONS = [
  { name: "live", xmlFlags: 0, updateFlags: 1 },
  { name: "config", xmlFlags: 1, updateFlags: 2 },
] as const;
type Definition = (typeof DEFINITIONS)[number];

/** virNetworkUpdateCommand and virNetworkUpdateSection. */
const DELETE = 2;
const ADD_LAST = 3;
const DHCP_HOST = 4;
/** IPv4 is the first address of our networks. */
const FIRST_ADDRESS = 0;

/** The version from which on the daemon takes command and section in the order of their names. */
const ORDERED_UPDATE = 7_002_000n;

/** Networks through libvirt. What is done to one network through this connection is done one at a time. */
export function networkAbility(host: HostContext): NetworkAbility {
  const locks = new KeyedLock();
  return {
    ensureNetwork: (spec, call) => locks.hold(spec.uuid, () => ensure(host, spec, call)),
    removeNetwork: (uuid, call) => locks.hold(uuid, () => remove(host, uuid, call)),
    observeNetwork: (uuid, call) => observe(host, uuid, call),
    reserveAddress: (uuid, lease, call) => locks.hold(uuid, () => reserve(host, uuid, lease, call)),
    releaseAddress: (uuid, macAddress, call) => locks.hold(uuid, () => release(host, uuid, macAddress, call)),
  };
}

async function ensure(host: HostContext, spec: NetworkSpec, call: Call): Promise<void> {
  const found = await findOwn(host, spec.uuid, call);
  const network = found?.network ?? (await define(host, spec, call));
  if (found !== null && (await isActive(host, network, call))) return;
  await host.calls.change(networkSetAutostart, { network, autostart: true }, call);
  try {
    await host.calls.change(networkCreate, { network }, call);
  } catch (error) {
    if (!isInvalidState(error) || !(await isActive(host, network, call))) throw error;
  }
}

async function define(host: HostContext, spec: NetworkSpec, call: Call): Promise<Network> {
  const namesake = await orNull(host.calls.read(networkLookupByName, { name: spec.name }, call));
  if (namesake !== null) {
    throw new HypervisorError(
      "already-exists",
      `the host has another network named '${spec.name}' (${namesake.network.uuid})`,
    );
  }
  return (await host.calls.change(networkDefineXml, { xml: networkXml(spec) }, call)).network;
}

async function remove(host: HostContext, uuid: string, call: Call): Promise<void> {
  const found = await findOwn(host, uuid, call);
  if (found === null) return;
  const { network } = found;
  if (await isActive(host, network, call)) {
    await unlessReached(host.calls.change(networkDestroy, { network }, call));
  }
  await unlessReached(host.calls.change(networkUndefine, { network }, call));
}

/** Lets pass what somebody else has done meanwhile. */
async function unlessReached(change: Promise<unknown>): Promise<void> {
  try {
    await change;
  } catch (error) {
    if (!isNotFound(error) && !isInvalidState(error)) throw error;
  }
}

async function observe(host: HostContext, uuid: string, call: Call): Promise<NetworkState | null> {
  const found = await orNull(host.calls.read(networkLookupByUuid, { uuid }, call));
  if (found === null) return null;
  const active = await isActive(host, found.network, call);
  const [definition] = DEFINITIONS;
  const { leases } = await read(host, found.network, definition, call);
  return { active, leases };
}

async function reserve(host: HostContext, uuid: string, lease: StaticLease, call: Call): Promise<void> {
  const network = await requireOwn(host, uuid, call);
  const matches = ({ macAddress, ipv4Address }: StaticLease) =>
    macAddress === lease.macAddress || ipv4Address === lease.ipv4Address;
  await eachDefinition(host, network, call, async (definition, { leases }) => {
    const there = leases.filter(matches);
    const isRight = there.length === 1 && there[0]?.macAddress === lease.macAddress;
    if (isRight && there[0]?.ipv4Address === lease.ipv4Address) return;
    for (const old of there) await update(host, network, DELETE, old, definition, call);
    await update(host, network, ADD_LAST, lease, definition, call);
  });
}

async function release(host: HostContext, uuid: string, macAddress: string, call: Call): Promise<void> {
  const found = await findOwn(host, uuid, call);
  if (found === null) return;
  await eachDefinition(host, found.network, call, async (definition, { leases }) => {
    for (const old of leases.filter((lease) => lease.macAddress === macAddress))
      await update(host, found.network, DELETE, old, definition, call);
  });
}

/** The definition that is kept, and that of the network that is up. */
async function eachDefinition(
  host: HostContext,
  network: Network,
  call: Call,
  work: (definition: Definition, is: NetworkOwnership) => Promise<void>,
): Promise<void> {
  const active = await isActive(host, network, call);
  for (const definition of DEFINITIONS) {
    if (definition.name === "live" && !active) continue;
    await work(definition, await read(host, network, definition, call));
  }
}

async function update(
  host: HostContext,
  network: Network,
  command: number,
  lease: StaticLease,
  { updateFlags: flags }: Definition,
  call: Call,
): Promise<void> {
  const { libVer } = await host.calls.read(connectGetLibVersion, undefined, call);
  const [first, second] = libVer >= ORDERED_UPDATE ? [command, DHCP_HOST] : [DHCP_HOST, command];
  const xml = leaseXml(lease);
  const args = { network, command: first, section: second, parentIndex: FIRST_ADDRESS, xml, flags };
  await host.calls.change(networkUpdate, args, call);
}

async function read(
  host: HostContext,
  network: Network,
  { xmlFlags: flags }: Definition,
  call: Call,
): Promise<NetworkOwnership> {
  return parseNetworkOwnership((await host.calls.read(networkGetXmlDesc, { network, flags }, call)).xml);
}

async function isActive(host: HostContext, network: Network, call: Call): Promise<boolean> {
  return (await host.calls.read(networkIsActive, { network }, call)).active;
}

async function requireOwn(host: HostContext, uuid: string, call: Call): Promise<Network> {
  const found = await findOwn(host, uuid, call);
  if (found === null) throw new HypervisorError("not-found", `the host has no network ${uuid}`);
  return found.network;
}

/** Null when the host has none. Throws HypervisorError `foreign` for one that is not ours. */
async function findOwn(
  host: HostContext,
  uuid: string,
  call: Call,
): Promise<{ readonly network: Network } | null> {
  const found = await orNull(host.calls.read(networkLookupByUuid, { uuid }, call));
  if (found === null) return null;
  const { network } = found;
  const { installationId } = await read(host, network, DEFINITIONS[0], call);
  if (installationId === host.target.installationId) return found;
  const whose = installationId === null ? "carries no mark of ours" : "belongs to another installation";
  throw new HypervisorError("foreign", `network '${network.name}' (${uuid}) ${whose}, so it is not changed`);
}

async function orNull<Result>(promise: Promise<Result>): Promise<Result | null> {
  try {
    return await promise;
  } catch (error) {
    if (isNotFound(error)) return null;
    throw error;
  }
}
