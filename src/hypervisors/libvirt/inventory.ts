import {
  connectGetAllDomainStats,
  connectListAllDomains,
  connectListAllNetworks,
  connectListAllStoragePools,
  type Domain,
  type Network,
  networkGetXmlDesc,
  type Pool,
  storagePoolGetXmlDesc,
  type TypedParam,
  typedParamMap,
} from "../../libvirt-rpc/index.ts";
import type {
  Call,
  HostInventory,
  ObservedDomain,
  ObservedNetwork,
  ObservedPool,
  SeenAddress,
} from "../hypervisor.ts";
import { readAddresses } from "./addresses.ts";
import { type DomainReader, observed, readFacts, readState } from "./domain-lookup.ts";
import { isNotFound } from "./errors.ts";
import type { HostCalls } from "./lanes.ts";
import { readMemory } from "./node-memory.ts";
import { parseNetwork } from "./parse-network.ts";
import { parsePool } from "./parse-pool.ts";
import type { DomainState } from "./power.ts";

/** virConnectListAllDomainsFlags, virConnectListAllNetworksFlags, virConnectListAllStoragePoolsFlags. */
const ALL = 0;
const DOMAINS_ACTIVE = 1;
const DOMAINS_MANAGED_SAVE = 256;
const DOMAINS_AUTOSTART = 1024;
const ACTIVE = 2;

/** virDomainStatsTypes: the state alone. The other groups ask the guests' QEMU, and one that hangs would hang us. */
const STATS_STATE = 1;

/**
 * Everything on the host. The list of domains is the authority; the rest is read beside it, and a domain that went
 * away meanwhile is left out. Any other failure fails the whole.
 */
export async function readInventory(reader: DomainReader, call: Call): Promise<HostInventory> {
  const { calls } = reader;
  const [domains, networks, pools, memory, addresses] = await Promise.all([
    readDomains(reader, call),
    readNetworks(calls, call),
    readPools(calls, call),
    readMemory(calls, call),
    readSeenAddresses(calls, call),
  ]);
  return { domains, networks, pools, memoryFreeMib: memory.freeMib, addresses };
}

async function readSeenAddresses(calls: HostCalls, call: Call): Promise<readonly SeenAddress[]> {
  const [{ networks }, domains] = await Promise.all([
    calls.read(connectListAllNetworks, { flags: ACTIVE }, call),
    listDomains(calls, DOMAINS_ACTIVE, call),
  ]);
  return await readAddresses(calls, { networks, domains }, call);
}

async function readDomains(reader: DomainReader, call: Call): Promise<readonly ObservedDomain[]> {
  const { calls, cache } = reader;
  const [all, saved, autostarted, states] = await Promise.all([
    listDomains(calls, ALL, call),
    listDomains(calls, DOMAINS_MANAGED_SAVE, call),
    listDomains(calls, DOMAINS_AUTOSTART, call),
    readStates(calls, call),
  ]);
  const uuids = uuidsOf(all);
  cache.retain(uuids);
  const savedUuids = uuidsOf(saved);
  const autostartUuids = uuidsOf(autostarted);
  const details = await Promise.all(
    all.map((domain) =>
      unlessGone(async () => {
        const [state, facts] = await Promise.all([
          states.get(domain.uuid) ?? readState(calls, domain, call),
          cache.get(domain.uuid) ?? readFacts(reader, domain, call),
        ]);
        return observed(domain, state, facts, {
          saved: savedUuids.has(domain.uuid),
          autostart: autostartUuids.has(domain.uuid),
        });
      }),
    ),
  );
  return details.filter((domain) => domain !== null);
}

async function listDomains(calls: HostCalls, flags: number, call: Call): Promise<readonly Domain[]> {
  return (await calls.read(connectListAllDomains, { flags }, call)).domains;
}

function uuidsOf(items: readonly { readonly uuid: string }[]): ReadonlySet<string> {
  return new Set(items.map(({ uuid }) => uuid));
}

async function readStates(calls: HostCalls, call: Call): Promise<ReadonlyMap<string, DomainState>> {
  const args = { domains: [], stats: STATS_STATE, flags: 0 };
  const { retStats } = await calls.read(connectGetAllDomainStats, args, call);
  return new Map(
    retStats.flatMap(({ domain, params }) => {
      const state = stateIn(params);
      return state === null ? [] : [[domain.uuid, state]];
    }),
  );
}

/** Null when the daemon left the group out for this domain: then it is asked for by itself. */
function stateIn(params: readonly TypedParam[]): DomainState | null {
  const values = typedParamMap(params);
  const state = values.get("state.state");
  const reason = values.get("state.reason");
  return typeof state === "number" && typeof reason === "number" ? { state, reason } : null;
}

async function readNetworks(calls: HostCalls, call: Call): Promise<readonly ObservedNetwork[]> {
  const list = async (flags: number): Promise<readonly Network[]> =>
    (await calls.read(connectListAllNetworks, { flags }, call)).networks;
  const [all, activeOnes] = await Promise.all([list(ALL), list(ACTIVE)]);
  const active = uuidsOf(activeOnes);
  const networks = await Promise.all(
    all.map((network) =>
      unlessGone(async () => {
        const { xml } = await calls.read(networkGetXmlDesc, { network, flags: 0 }, call);
        return { ...parseNetwork(xml), active: active.has(network.uuid) };
      }),
    ),
  );
  return networks.filter((network) => network !== null);
}

async function readPools(calls: HostCalls, call: Call): Promise<readonly ObservedPool[]> {
  const list = async (flags: number): Promise<readonly Pool[]> =>
    (await calls.read(connectListAllStoragePools, { flags }, call)).pools;
  const [all, activeOnes] = await Promise.all([list(ALL), list(ACTIVE)]);
  const active = uuidsOf(activeOnes);
  const pools = await Promise.all(
    all.map((pool) =>
      unlessGone(async () => {
        const { xml } = await calls.read(storagePoolGetXmlDesc, { pool, flags: 0 }, call);
        return { ...parsePool(xml), active: active.has(pool.uuid) };
      }),
    ),
  );
  return pools.filter((pool) => pool !== null);
}

async function unlessGone<Result>(read: () => Promise<Result>): Promise<Result | null> {
  try {
    return await read();
  } catch (error) {
    if (isNotFound(error)) return null;
    throw error;
  }
}
