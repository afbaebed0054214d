import { createHash, randomBytes } from "node:crypto";
import type { Tx } from "../db/transaction.ts";
import type { Hypervisor } from "../hypervisors/hypervisor.ts";
import { DroverError } from "../lib/errors.ts";
import type { HostId, NetworkId, ProjectId } from "../lib/ids.ts";
import { eui64Address, formatIpv4, formatIpv6, parseIpv4, parseSubnet } from "../lib/ip-address.ts";
import { firstFree, isWithin, poolOf } from "../networks/ipam.ts";
import { networkNameOnHost } from "../networks/network-on-host.ts";
import type { NetworkIpv4, NetworkRecord } from "../networks/network-record.ts";
import {
  addNetworksToHost,
  findNetworks,
  hostsLabelled,
  lockForAddresses,
  takenAddresses,
} from "../networks/network-store.ts";
import type { Subject } from "../operations/operation-kind.ts";
import type { ManagedNetworkWish } from "./placement.ts";
import { wrong } from "./vm-images.ts";
import { type NicRow, takenMacAddresses } from "./vm-nic-store.ts";
import type { VmNicSpec } from "./vm-record.ts";
import type { CreateVmBody } from "./vm-schemas.ts";

/** A NIC that is asked for, and the network of the project that it means; null: one that hosts have by themselves. */
export interface PlannedNic {
  readonly nic: VmNicSpec;
  readonly network: NetworkRecord | null;
  /** Where it stands in the request, such as `/spec/nics/0`. */
  readonly pointer: string;
}

/** What is written before a name means a network that the host has, whatever the project has. */
const OF_HOST = "host:";

/**
 * Finds out which networks are meant: those of the project, by id or name, come before what hosts have by themselves.
 * Throws `invalid_request` for an address where the network gives none.
 */
export async function planNics(
  tx: Tx,
  projectId: ProjectId,
  asked: readonly { readonly nic: VmNicSpec; readonly pointer: string }[],
): Promise<readonly PlannedNic[]> {
  const names = asked.map(({ nic }) => nic.network).filter((name) => !name.startsWith(OF_HOST));
  const networks = await findNetworks(tx, projectId, [...new Set(names)]);
  return asked.map(({ nic, pointer }) => {
    const network = networks.find(({ id, name }) => id === nic.network || name === nic.network) ?? null;
    if (nic.ipv4Address !== undefined && (network === null || network.ipv4 === null)) {
      const message = "the network gives no IPv4 addresses: only a network of the project with a subnet does";
      throw wrong(`${pointer}/ipv4Address`, message);
    }
    return { nic, network, pointer };
  });
}

/** A NIC as a spec holds it: without what is undefined. */
export function nicSpecOf(nic: CreateVmBody["spec"]["nics"][number]): VmNicSpec {
  return JSON.parse(JSON.stringify(nic)) as VmNicSpec;
}

/** The name of a network that the host has. */
function hostNetworkOf({ network }: VmNicSpec): string {
  return network.startsWith(OF_HOST) ? network.slice(OF_HOST.length) : network;
}

function managedIn(planned: readonly PlannedNic[]): NetworkRecord[] {
  const networks = planned.flatMap(({ network }) => (network === null ? [] : [network]));
  return [...new Map(networks.map((network) => [network.id, network])).values()];
}

/** The networks' lanes: who takes a network away waits for those who join it, and the other way round. */
export function networkSubjects(planned: readonly PlannedNic[]): Subject[] {
  return managedIn(planned).map(({ id }) => ({ kind: "network", id, mode: "shared" }));
}

/** What the NICs ask of a host. */
export async function networkWishes(
  tx: Tx,
  planned: readonly PlannedNic[],
): Promise<{ readonly networks: readonly string[]; readonly managed: readonly ManagedNetworkWish[] }> {
  const own = planned.flatMap(({ nic, network }) => (network === null ? [hostNetworkOf(nic)] : []));
  const managed: ManagedNetworkWish[] = [];
  for (const { name, bridge, hostLabels } of managedIn(planned)) {
    const hostIds = hostLabels === null ? null : await hostsLabelled(tx, hostLabels);
    managed.push({ name, bridge, hostIds });
  }
  return { networks: [...new Set(own)], managed };
}

/**
 * Takes addresses for NICs on a host and writes down that the host has their networks from now on. Locks the networks'
 * rows until the transaction ends, so that no address is taken twice and none that is free is refused. Throws
 * `addresses_exhausted`, `already_exists` for an address that another NIC has, and `conflict` for a network that is
 * deleted meanwhile.
 */
export async function reserveNics(
  tx: Tx,
  planned: readonly PlannedNic[],
  host: { readonly id: HostId; readonly hypervisor: Hypervisor },
): Promise<readonly NicRow[]> {
  const ids = managedIn(planned).map(({ id }) => id);
  const locked = ids.length === 0 ? [] : await lockForAddresses(tx, ids);
  const lost = ids.some((id) => locked.find((network) => network.id === id)?.state !== "ready");
  if (lost) {
    throw new DroverError(
      "conflict",
      "A network of this VM is being deleted. List them with GET /v1/networks.",
    );
  }
  await addNetworksToHost(tx, host.id, ids);
  const taken = new Map<NetworkId, bigint[]>();
  for (const { id, ipv4 } of locked) if (ipv4 !== null) taken.set(id, await takenIn(tx, id, ipv4));
  const chosen = planned.map((item) => ({ item, ipv4: chooseAddress(item, taken) }));
  const macs = await chooseMacAddresses(tx, chosen);
  return chosen.map(({ item: { nic, network }, ipv4 }, index) => {
    const macAddress = macs[index] ?? randomMacAddress();
    return {
      name: nic.name,
      network: network === null ? hostNetworkOf(nic) : nameOn(host.hypervisor, network),
      networkId: network?.id ?? null,
      macAddress,
      allowSpoofing: nic.allowSpoofing === true,
      addresses: [...(ipv4 === null ? [] : [ipv4]), ...ipv6Of(network, macAddress)],
    };
  });
}

/** Xen's toolstack knows bridges only: there a network is the bridge itself. */
function nameOn(hypervisor: Hypervisor, network: NetworkRecord): string {
  return hypervisor === "xen" && network.bridge !== null ? network.bridge : networkNameOnHost(network);
}

async function takenIn(tx: Tx, id: NetworkId, ipv4: NetworkIpv4): Promise<bigint[]> {
  const addresses = (await takenAddresses(tx, id)).flatMap((text) => parseIpv4(text) ?? []);
  return [...addresses, ...poolOf(ipv4).reserved];
}

/** The address that was asked for, else the first that is free; it counts as taken for the next. */
function chooseAddress(
  { nic, network, pointer }: PlannedNic,
  taken: ReadonlyMap<NetworkId, bigint[]>,
): string | null {
  if (network === null || network.ipv4 === null) return null;
  const used = taken.get(network.id) ?? [];
  const { hosts, range } = poolOf(network.ipv4);
  const asked = nic.ipv4Address === undefined ? null : parseIpv4(nic.ipv4Address);
  if (asked !== null && !isWithin(hosts, asked)) {
    throw wrong(`${pointer}/ipv4Address`, `must be a machine's address in ${network.ipv4.cidr}`);
  }
  if (asked !== null && used.includes(asked)) {
    throw new DroverError(
      "already_exists",
      `The address ${nic.ipv4Address ?? ""} of the network "${network.name}" belongs to another NIC, or to the gateway. Leave it out, and a free one is chosen.`,
    );
  }
  const address = asked ?? firstFree(range, used);
  if (address === null) throw exhausted(network);
  used.push(address);
  return formatIpv4(address);
}

function exhausted({ name, ipv4 }: NetworkRecord): DroverError {
  const { start, end } = ipv4?.range ?? { start: "", end: "" };
  return new DroverError(
    "addresses_exhausted",
    `All addresses of the network "${name}" from ${start} to ${end} are taken. Delete VMs or NICs in it, or use another network.`,
    { details: { network: name, start, end } },
  );
}

function ipv6Of(network: NetworkRecord | null, macAddress: string): string[] {
  const cidr = network?.ipv6?.cidr;
  const subnet = cidr === undefined ? null : parseSubnet(cidr);
  return subnet === null ? [] : [formatIpv6(eui64Address(subnet, macAddress))];
}

/**
 * In a network of the project an address comes with a MAC address that follows from it: whoever gets the address next has
 * the same one, and so the lease that a DHCP server may still hold is his. Where that is taken, chance decides.
 */
async function chooseMacAddresses(
  tx: Tx,
  chosen: readonly { readonly item: PlannedNic; readonly ipv4: string | null }[],
): Promise<readonly string[]> {
  const wished = chosen.map(({ item: { nic, network }, ipv4 }) => {
    if (nic.macAddress !== undefined) return { mac: nic.macAddress, isAsked: true };
    const follows = network !== null && ipv4 !== null;
    return { mac: follows ? macAddressFor(network.id, ipv4) : randomMacAddress(), isAsked: false };
  });
  const derived = wished.filter(({ isAsked }) => !isAsked).map(({ mac }) => mac);
  const taken = await takenMacAddresses(tx, derived);
  return wished.map(({ mac, isAsked }, index) => {
    const again = wished.findIndex((other) => other.mac === mac) < index;
    return !isAsked && (taken.has(mac) || again) ? randomMacAddress() : mac;
  });
}

/** QEMU's and libvirt's own prefix for guests; 24 bits are left. */
const PREFIX = ["52", "54", "00"];

function macAddressOf(bytes: Uint8Array): string {
  return [...PREFIX, ...[...bytes.subarray(0, 3)].map((byte) => byte.toString(16).padStart(2, "0"))].join(
    ":",
  );
}

function macAddressFor(networkId: NetworkId, ipv4Address: string): string {
  return macAddressOf(createHash("sha256").update(`${networkId} ${ipv4Address}`).digest());
}

/** A unique index refuses the rare twin. */
function randomMacAddress(): string {
  return macAddressOf(randomBytes(3));
}
