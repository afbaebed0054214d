import { beforeEach, describe, expect, it } from "vitest";
import { DomainFactCache } from "../../../../src/hypervisors/libvirt/domain-fact-cache.ts";
import { readInventory } from "../../../../src/hypervisors/libvirt/inventory.ts";
import { systemClock } from "../../../../src/lib/clock.ts";
import { type Domain, errorCode } from "../../../../src/libvirt-rpc/index.ts";
import { type Answers, call, fakeCalls, refuse } from "./fake-calls.ts";
import { fixture } from "./fixture.ts";

const [web, db, gone]: readonly [Domain, Domain, Domain] = [
  { name: "web", uuid: "0192aaaa-0000-7000-8000-000000000001", id: 1 },
  { name: "db", uuid: "0192aaaa-0000-7000-8000-000000000002", id: -1 },
  { name: "gone", uuid: "0192aaaa-0000-7000-8000-000000000003", id: -1 },
];
const state = (value: number, reason: number) => [
  { field: "state.state", value: { type: "int", value } },
  { field: "state.reason", value: { type: "int", value: reason } },
];
const noDomain = (): never => refuse(errorCode.noDomain, "Domain not found");

const answers: Answers = {
  connectListAllDomains: ({ flags }: { flags: number }) => ({
    domains: flags === 0 ? [web, db] : flags === 256 ? [db] : [web],
  }),
  connectGetAllDomainStats: () => ({
    retStats: [
      { domain: web, params: state(1, 1) },
      { domain: db, params: state(5, 5) },
    ],
  }),
  domainGetXmlDesc: () => ({ xml: fixture("domain-ours-9.0.0") }),
  domainGetState: () => ({ state: 3, reason: 5 }),
  connectListAllNetworks: () => ({ networks: [{ name: "default", uuid: "n" }] }),
  networkGetDhcpLeases: () => ({
    leases: [
      { mac: "52:54:00:AA:00:01", ipAddr: "10.0.0.5" },
      { mac: null, ipAddr: "10.0.0.6" },
      { mac: "a0:00:02:20:fe:80:00:00", ipAddr: "10.0.0.8" },
    ],
  }),
  domainInterfaceAddresses: () => ({
    interfaces: [{ hwAddr: "52:54:00:aa:00:02", addrs: [{ addr: "10.0.0.7" }, { addr: "no address" }] }],
  }),
  networkGetXmlDesc: () => ({ xml: fixture("network-nat-9.0.0") }),
  connectListAllStoragePools: ({ flags }: { flags: number }) => ({
    pools: flags === 0 ? [{ name: "default", uuid: "p" }] : [],
  }),
  storagePoolGetXmlDesc: () => ({ xml: fixture("pool-dir-9.0.0") }),
  nodeGetMemoryStats: () => refuse(errorCode.noSupport, "not supported"),
  nodeGetInfo: () => ({ memory: 4_194_304n }),
  nodeGetFreeMemory: () => ({ freeMem: 1_073_741_824n }),
};

let cache: DomainFactCache;
beforeEach(() => {
  cache = new DomainFactCache(systemClock);
});

function inventory(changed: Answers = {}) {
  const calls = fakeCalls({ ...answers, ...changed });
  return { calls, found: readInventory({ calls, cache }, call) };
}

describe("an inventory", () => {
  it("puts together what the lists, the states and the definitions tell", async () => {
    const { domains, networks, pools, memoryFreeMib } = await inventory().found;
    const facts = {
      installationId: "0192aaaa-0000-7000-8000-000000000001",
      vmId: "0192aaaa-0000-7000-8000-00000000abcd",
      cpuCount: 2,
      memoryMib: 256,
    };
    expect(domains).toEqual([
      { uuid: web.uuid, name: "web", power: "running", reason: "booted", autostart: true, ...facts },
      { uuid: db.uuid, name: "db", power: "saved", reason: "saved", autostart: false, ...facts },
    ]);
    expect(networks).toMatchObject([{ name: "default", active: true, mode: "nat" }]);
    expect(pools).toMatchObject([{ name: "default", active: false, type: "dir" }]);
    expect(memoryFreeMib).toBe(1024);
  });

  it("tells the addresses that were leased and heard, as far as they are such", async () => {
    const { addresses } = await inventory().found;
    expect(addresses).toEqual([
      { macAddress: "52:54:00:aa:00:01", address: "10.0.0.5", source: "lease" },
      ...[web].map(() => ({ macAddress: "52:54:00:aa:00:02", address: "10.0.0.7", source: "arp" })),
    ]);
  });

  it("is one without addresses where libvirt cannot tell any", async () => {
    const mute = () => refuse(errorCode.internalError, "internal error: wrong nlmsg len");
    const changed = { networkGetDhcpLeases: mute, domainInterfaceAddresses: mute };
    expect((await inventory(changed).found).addresses).toEqual([]);
  });

  it("reads a definition once, and again when an event dropped it", async () => {
    await inventory().found;
    const second = inventory();
    await second.found;
    expect(second.calls.asked).not.toContain("domainGetXmlDesc");
    cache.drop(web.uuid);
    const third = inventory();
    await third.found;
    expect(third.calls.asked.filter((name) => name === "domainGetXmlDesc")).toHaveLength(1);
  });

  it("counts free memory and what the host can give up", async () => {
    const stats = { total: 8_388_608n, free: 1_048_576n, buffers: 1024n, cached: 2048n };
    const params = Object.entries(stats).map(([field, value]) => ({ field, value }));
    const { found } = inventory({ nodeGetMemoryStats: () => ({ params, nParams: params.length }) });
    expect((await found).memoryFreeMib).toBe(1024 + 1 + 2);
  });

  it("leaves out a domain that went away meanwhile", async () => {
    const { found } = inventory({
      connectListAllDomains: () => ({ domains: [web, gone] }),
      domainGetXmlDesc: ({ domain }: { domain: Domain }) =>
        domain.uuid === gone.uuid ? noDomain() : { xml: fixture("domain-ours-9.0.0") },
    });
    expect((await found).domains.map(({ name }) => name)).toEqual(["web"]);
  });

  it("asks by itself for a state that the statistics left out", async () => {
    const { found } = inventory({
      connectGetAllDomainStats: () => ({ retStats: [{ domain: web, params: [] }] }),
    });
    expect((await found).domains[0]).toMatchObject({ power: "paused", reason: "ioerror" });
  });

  it.each([
    "connectListAllDomains",
    "connectGetAllDomainStats",
    "domainGetXmlDesc",
    "connectListAllNetworks",
    "storagePoolGetXmlDesc",
    "nodeGetFreeMemory",
  ])("is an error as a whole when %s fails", async (name) => {
    const { found } = inventory({ [name]: () => refuse(errorCode.internalError, "the disk is on fire") });
    await expect(found).rejects.toMatchObject({ reason: "failed", message: "the disk is on fire" });
  });

  it("is an error when a definition cannot be read", async () => {
    const { found } = inventory({ domainGetXmlDesc: () => ({ xml: "<domain>" }) });
    await expect(found).rejects.toMatchObject({ reason: "failed" });
  });
});
