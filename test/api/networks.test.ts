import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  createNetwork,
  createVm,
  deleteHost,
  deleteNetwork,
  deleteVm,
  getNetwork,
  getVm,
  listEvents,
  listNetworks,
  type Network,
  removeNetworkFromHost,
  updateNetwork,
} from "../../openapi/sdk/index.ts";
import {
  addHost,
  addVm,
  askForVm,
  ok,
  operationEnd,
  problemOf,
  startTestService,
  type TestService,
} from "../fixtures/service.ts";

let service: TestService;
let subnets = 0;

beforeAll(async () => {
  service = await startTestService();
  await addHost(service, "k1", "sim+kvm://k1?cpus=64&memoryGib=256");
  await addHost(service, "k2", "sim+kvm://k2?cpus=64&memoryGib=256");
  await addHost(service, "x1", "sim+xen://x1?cpus=64&memoryGib=256");
});
afterAll(async () => {
  await service.stop();
});

type Body = Parameters<typeof createNetwork>[0]["body"];

/** Networks of one installation have subnets apart. */
function freshCidr(prefix = 24): string {
  return `10.${100 + subnets++}.0.0/${prefix}`;
}

async function addNetwork(name: string, body: Partial<Body> = {}): Promise<Network> {
  const whole = { name, kind: "nat" as const, ipv4: { cidr: freshCidr() }, ...body };
  return await ok(createNetwork({ client: service.client, body: whole }));
}

function networkNow(network: string): Promise<Network> {
  return ok(getNetwork({ client: service.client, path: { network } }));
}

async function ended(asked: Promise<{ readonly operation: { readonly id: string } }>): Promise<string> {
  return (await operationEnd(service, (await asked).operation.id)).state;
}

const removeVm = (vm: string) => ended(ok(deleteVm({ client: service.client, path: { vm } })));

interface OnHost {
  readonly host: string;
  readonly name: string;
  readonly leases: readonly { readonly macAddress: string; readonly ipv4Address: string }[];
}

/** The networks that were made on simulated hosts. */
async function onHosts(id: string): Promise<readonly OnHost[]> {
  return await service.database.db.$queryRaw<OnHost[]>`
    SELECT h.name AS host, n.name, n.leases FROM sim.network n JOIN sim.host h ON h.id = n.host_id
    WHERE n.uuid = ${id}::uuid ORDER BY h.name`;
}

describe("a new network", () => {
  it("is there with what was left open, by id and by name, and on no host yet", async () => {
    const body: Body = {
      name: "backend",
      kind: "nat",
      ipv4: { cidr: "10.20.0.0/24" },
      labels: { tier: "db" },
    };
    const { data, response } = await createNetwork({ client: service.client, body });
    expect(response?.status).toBe(201);
    expect(response?.headers.get("location")).toBe(`/v1/networks/${data?.id}`);
    expect(data).toMatchObject({
      ...{ name: "backend", project: "default", generation: 1, kind: "nat", state: "ready", hosts: [] },
      ipv4: { cidr: "10.20.0.0/24", gateway: "10.20.0.1", range: { start: "10.20.0.1", end: "10.20.0.254" } },
      ...{ ipv6: null, bridge: null, vlan: null, hostLabels: null, addressesReserved: 0 },
    });
    expect(await networkNow("backend")).toEqual(data);
    expect(await networkNow(data?.id ?? "")).toEqual(data);
  });

  it.each<[string, Partial<Body>, string]>([
    ["bits beyond its prefix", { ipv4: { cidr: "10.21.0.1/24" } }, "/ipv4/cidr"],
    ["a subnet too small", { ipv4: { cidr: "10.21.0.0/31" } }, "/ipv4/cidr"],
    ["an IPv6 subnet for IPv4", { ipv4: { cidr: "fd00::/64" } }, "/ipv4/cidr"],
    ["a gateway outside", { ipv4: { cidr: "10.21.0.0/24", gateway: "10.22.0.1" } }, "/ipv4/gateway"],
    ["its broadcast as gateway", { ipv4: { cidr: "10.21.0.0/24", gateway: "10.21.0.255" } }, "/ipv4/gateway"],
    [
      "a range the wrong way round",
      { ipv4: { cidr: "10.21.0.0/24", range: { start: "10.21.0.9", end: "10.21.0.2" } } },
      "/ipv4/range/end",
    ],
    ["an IPv6 subnet of another length", { ipv6: { cidr: "fd00::/56" } }, "/ipv6/cidr"],
    ["a bridge that it makes itself", { bridge: "br0" }, "/bridge"],
    ["a tag without a bridge", { vlan: 7 }, "/vlan"],
    ["kind bridged and no bridge", { kind: "bridged" }, "/bridge"],
    ["a bridge's name too long", { kind: "bridged", bridge: "b".repeat(16) }, "/bridge"],
  ])("is refused with %s", async (_what, body, pointer) => {
    const whole = { name: "wrong", kind: "nat" as const, ipv4: { cidr: "10.21.0.0/24" }, ...body };
    const problem = await problemOf(createNetwork({ client: service.client, body: whole }));
    expect(problem).toMatchObject({ httpStatus: 422, code: "invalid_request", violations: [{ pointer }] });
  });

  it("is refused without a subnet where it leads outside", async () => {
    for (const kind of ["nat", "routed"] as const) {
      const problem = await problemOf(
        createNetwork({ client: service.client, body: { name: "wrong", kind } }),
      );
      expect(problem).toMatchObject({ httpStatus: 422, violations: [{ pointer: "/ipv4" }] });
    }
  });

  it("has its subnet to itself, and its name", async () => {
    const { ipv4 } = await addNetwork("first");
    const again = (name: string, cidr: string, kind: Body["kind"] = "nat", bridge?: string) =>
      createNetwork({
        client: service.client,
        body: { name, kind, ipv4: { cidr }, ...(bridge === undefined ? {} : { bridge }) },
      });
    expect(await problemOf(again("second", ipv4?.cidr ?? ""))).toMatchObject({
      ...{ httpStatus: 409, code: "conflict", retry: "afterStateChange" },
    });
    expect(await problemOf(again("first", freshCidr()))).toMatchObject({ code: "name_taken" });
    // The hosts have no address of their own there.
    await ok(again("on-a-bridge", ipv4?.cidr ?? "", "bridged", "br0"));
  });

  it("is listed by kind and labels, and its labels change", async () => {
    await addNetwork("apart", { kind: "isolated", labels: { team: "a" } });
    const query = { kind: "isolated" as const, labelSelector: "team=a" };
    const listed = await ok(listNetworks({ client: service.client, query }));
    expect(listed.items.map(({ name }) => name)).toEqual(["apart"]);
    const changed = await ok(
      updateNetwork({
        client: service.client,
        path: { network: "apart" },
        body: { labels: { team: "b" } },
        headers: { "If-Match": '"1"' },
      }),
    );
    expect(changed).toMatchObject({ labels: { team: "b" }, generation: 2 });
    const stale = updateNetwork({
      ...{ client: service.client, path: { network: "apart" }, body: { labels: { team: "c" } } },
      headers: { "If-Match": '"1"' },
    });
    expect(await problemOf(stale)).toMatchObject({ code: "precondition_failed" });
  });
});

describe("a VM in a network of its project", () => {
  it("has an address of it, which its host's DHCP gives to its MAC address, until it is deleted", async () => {
    const { id } = await addNetwork("web");
    const nics = [{ name: "eth0", network: "web" }];
    const vm = await addVm(service, "in-web", { nics, placement: { host: "k1" } });
    const [nic] = vm.status.nics;
    const prefix = (await networkNow("web")).ipv4?.cidr.slice(0, -4) ?? "";
    expect(nic).toMatchObject({ name: "eth0", network: "web", networkId: id, addresses: [`${prefix}2`] });
    expect(await onHosts(id)).toEqual([
      {
        ...{ host: "k1", name: `web-${id.slice(-12)}` },
        leases: [{ macAddress: nic?.macAddress, ipv4Address: `${prefix}2` }],
      },
    ]);
    expect(await networkNow("web")).toMatchObject({ hosts: ["k1"], addressesReserved: 1 });
    expect(await removeVm("in-web")).toBe("succeeded");
    expect(await onHosts(id)).toMatchObject([{ host: "k1", leases: [] }]);
    expect(await networkNow("web")).toMatchObject({ hosts: ["k1"], addressesReserved: 0 });
  });

  it("shows its address as static until the host has seen it leased, and what was seen with an event", async () => {
    await addNetwork("seen");
    const nics = [{ name: "eth0", network: "seen" }];
    const vm = await addVm(service, "is-seen", { nics, placement: { host: "k1" } });
    const address = vm.status.nics[0]?.addresses[0] ?? "";
    const sourceNow = async () =>
      (await ok(getVm({ client: service.client, path: { vm: "is-seen" } }))).status.addresses;
    await expect.poll(sourceNow, { timeout: 30_000 }).toEqual([{ address, nic: "eth0", source: "lease" }]);
    await service.sim.setDomainPower("sim+kvm://k1?cpus=64&memoryGib=256", vm.id, "off");
    await expect.poll(sourceNow, { timeout: 30_000 }).toEqual([{ address, nic: "eth0", source: "static" }]);
    const query = { subject: vm.id, type: ["vm.addresses.changed"] };
    const told = async () =>
      (await ok(listEvents({ client: service.client, query }))).items.map(({ data }) => data["addresses"]);
    await expect.poll(told, { timeout: 30_000 }).toEqual([[{ address, nic: "eth0", source: "lease" }], []]);
  });

  it("gets the address that it asks for, when nobody has it", async () => {
    const { ipv4 } = await addNetwork("asked");
    const prefix = ipv4?.cidr.slice(0, -4) ?? "";
    const nic = (ipv4Address: string) => [{ name: "eth0", network: "asked", ipv4Address }];
    const vm = await addVm(service, "asks", { nics: nic(`${prefix}77`) });
    expect(vm.status.nics[0]?.addresses).toEqual([`${prefix}77`]);
    const ask = (name: string, ipv4Address: string) =>
      problemOf(
        createVm({
          client: service.client,
          body: { name, spec: { cpu: { count: 1 }, memoryMib: 64, nics: nic(ipv4Address) } },
        }),
      );
    expect(await ask("twin", `${prefix}77`)).toMatchObject({ httpStatus: 409, code: "already_exists" });
    expect(await ask("router", `${prefix}1`)).toMatchObject({ httpStatus: 409, code: "already_exists" });
    expect(await ask("outside", "10.99.0.1")).toMatchObject({
      ...{ httpStatus: 422, violations: [{ pointer: "/spec/nics/0/ipv4Address" }] },
    });
    expect(await ask("broadcast", `${prefix}255`)).toMatchObject({ httpStatus: 422 });
    expect(await networkNow("asked")).toMatchObject({ addressesReserved: 1 });
  });

  it("is given the same MAC address as who had the address before: a lease that is remembered is his", async () => {
    await addNetwork("reused");
    const nics = [{ name: "eth0", network: "reused" }];
    const first = await addVm(service, "reuses-1", { nics });
    await removeVm("reuses-1");
    const second = await addVm(service, "reuses-2", { nics });
    expect(second.status.nics).toEqual(first.status.nics);
  });

  it("has an IPv6 address that follows from its MAC address", async () => {
    await addNetwork("six", { ipv6: { cidr: "fd00:6::/64" } });
    const nics = [{ name: "eth0", network: "six", macAddress: "52:54:00:aa:bb:cc" }];
    const vm = await addVm(service, "has-six", { nics });
    expect(vm.status.nics[0]?.addresses).toContain("fd00:6::5054:ff:feaa:bbcc");
  });

  it("has none left for one more than fit, and then one again", async () => {
    await addNetwork("tiny", { ipv4: { cidr: freshCidr(30) } });
    const nics = [{ name: "eth0", network: "tiny" }];
    await addVm(service, "fits", { nics });
    const body = { name: "too-many", spec: { cpu: { count: 1 }, memoryMib: 64, nics } };
    expect(await problemOf(createVm({ client: service.client, body }))).toMatchObject({
      ...{ httpStatus: 409, code: "addresses_exhausted", retry: "afterCapacity" },
    });
    await removeVm("fits");
    await addVm(service, "too-many", { nics });
  });

  it("means the project's network before the host's of the same name, and the host's when it says so", async () => {
    const own = await addNetwork("default");
    const nics = [
      { name: "eth0", network: "default" },
      { name: "eth1", network: "host:default" },
    ];
    const vm = await addVm(service, "in-both", { nics });
    expect(vm.status.nics.map(({ networkId }) => networkId)).toEqual([own.id, null]);
    await removeVm("in-both");
    expect(await ended(ok(deleteNetwork({ client: service.client, path: { network: "default" } })))).toBe(
      "succeeded",
    );
    const after = await addVm(service, "in-hosts", { nics: [{ name: "eth0", network: "default" }] });
    expect(after.status.nics[0]).toMatchObject({ network: "default", networkId: null });
  });

  it("goes where its network may be, and to a bridge that a Xen host has", async () => {
    await addNetwork("second-only", { hostLabels: { zone: "none" } });
    const nowhere = {
      name: "nowhere",
      spec: { cpu: { count: 1 }, memoryMib: 64, nics: [{ name: "eth0", network: "second-only" }] },
    };
    expect(await problemOf(createVm({ client: service.client, body: nowhere }))).toMatchObject({
      code: "no_placement",
      details: { counts: { networkMissing: 2, capabilityMissing: 1 } },
    });
    await addNetwork("made", {});
    const onXen = { placement: { host: "x1" }, hypervisor: "xen" as const, guestType: "hvm" as const };
    const body = (network: string) => ({
      name: `on-${network}`,
      spec: { ...onXen, cpu: { count: 1 }, memoryMib: 64, nics: [{ name: "eth0", network }] },
    });
    expect(await problemOf(createVm({ client: service.client, body: body("made") }))).toMatchObject({
      ...{ httpStatus: 409, code: "capability_unsupported" },
    });
    const cidr = freshCidr();
    await addNetwork("xen-bridge", { kind: "bridged", bridge: "default", ipv4: { cidr } });
    const vm = await addVm(service, "on-xen", { ...onXen, nics: [{ name: "eth0", network: "xen-bridge" }] });
    expect(vm.status.nics[0]).toMatchObject({ addresses: [cidr.replace("0/24", "1")] });
    await removeVm("on-xen");
  });

  it("leaves no lease and no address when it could not be made", async () => {
    const { id } = await addNetwork("failing");
    await service.sim.failNextCalls("sim+kvm://k1?cpus=64&memoryGib=256", "startDomain", 10);
    const nics = [{ name: "eth0", network: "failing" }];
    const { operation } = await askForVm(service, "fails", { nics, placement: { host: "k1" } });
    expect((await operationEnd(service, operation.id)).state).toBe("failed");
    await service.sim.clearFaults("sim+kvm://k1?cpus=64&memoryGib=256");
    expect(await onHosts(id)).toMatchObject([{ leases: [] }]);
    expect(await networkNow("failing")).toMatchObject({ addressesReserved: 1 });
    await removeVm("fails");
    expect(await networkNow("failing")).toMatchObject({ addressesReserved: 0 });
  });
});

describe("a network that is deleted", () => {
  it("is refused while a NIC uses it, and then is gone from every host", async () => {
    const { id } = await addNetwork("leaving");
    const nics = [{ name: "eth0", network: "leaving" }];
    await addVm(service, "stays-1", { nics, placement: { host: "k1" } });
    await addVm(service, "stays-2", { nics, placement: { host: "k2" } });
    expect((await onHosts(id)).map(({ host }) => host)).toEqual(["k1", "k2"]);
    const ask = () => deleteNetwork({ client: service.client, path: { network: "leaving" } });
    expect(await problemOf(ask())).toMatchObject({
      ...{ httpStatus: 409, code: "in_use", details: { vms: ["stays-1", "stays-2"] } },
    });
    await removeVm("stays-1");
    await removeVm("stays-2");
    const { network, operation } = await ok(ask());
    expect(network).toMatchObject({ state: "deleting", hosts: ["k1", "k2"] });
    expect(operation).toMatchObject({ kind: "network.delete", hosts: ["k1", "k2"] });
    expect((await operationEnd(service, operation.id)).state).toBe("succeeded");
    expect(await onHosts(id)).toEqual([]);
    expect(await problemOf(ask())).toMatchObject({ httpStatus: 404 });
  });

  it("stays, to be deleted again, when a host does not let it go", async () => {
    const { id } = await addNetwork("sticky");
    await addVm(service, "sticks", {
      nics: [{ name: "eth0", network: "sticky" }],
      placement: { host: "k1" },
    });
    await removeVm("sticks");
    await service.sim.failNextCalls("sim+kvm://k1?cpus=64&memoryGib=256", "removeNetwork", 5);
    const ask = () => ended(ok(deleteNetwork({ client: service.client, path: { network: "sticky" } })));
    expect(await ask()).toBe("failed");
    expect(await networkNow("sticky")).toMatchObject({ state: "ready", hosts: ["k1"] });
    await service.sim.clearFaults("sim+kvm://k1?cpus=64&memoryGib=256");
    expect(await ask()).toBe("succeeded");
    expect(await onHosts(id)).toEqual([]);
  });

  it("can be taken off one host where nobody uses it, and comes back with the next VM", async () => {
    const { id } = await addNetwork("wandering");
    const spec = { nics: [{ name: "eth0", network: "wandering" }], placement: { host: "k1" } };
    await addVm(service, "wanders", spec);
    const path = { network: "wandering", host: "k1" };
    const ask = () => removeNetworkFromHost({ client: service.client, path });
    expect(await problemOf(ask())).toMatchObject({ httpStatus: 409, code: "in_use" });
    await removeVm("wanders");
    expect(await ended(ok(ask()))).toBe("succeeded");
    expect(await onHosts(id)).toEqual([]);
    expect(await networkNow("wandering")).toMatchObject({ hosts: [] });
    expect(await problemOf(ask())).toMatchObject({ httpStatus: 404 });
    // The create waits for what takes it away, and makes it anew.
    await addVm(service, "again-1", spec);
    await removeVm("again-1");
    await service.sim.failNextCalls("sim+kvm://k1?cpus=64&memoryGib=256", "removeNetwork", 1);
    const withdrawn = await ok(ask());
    const made = await askForVm(service, "again-2", spec);
    expect(made.operation).toMatchObject({ state: "blocked", blockedBy: [withdrawn.operation.id] });
    expect((await operationEnd(service, withdrawn.operation.id)).state).toBe("succeeded");
    expect((await operationEnd(service, made.operation.id)).state).toBe("succeeded");
    expect(await onHosts(id)).toMatchObject([{ host: "k1", leases: [{}] }]);
    expect(await networkNow("wandering")).toMatchObject({ hosts: ["k1"] });
    await removeVm("again-2");
  });

  it("keeps its host from being deleted until it is off it", async () => {
    await addHost(service, "k3", "sim+kvm://k3");
    await addNetwork("holding");
    await addVm(service, "holds", {
      nics: [{ name: "eth0", network: "holding" }],
      placement: { host: "k3" },
    });
    await removeVm("holds");
    const ask = () => deleteHost({ client: service.client, path: { host: "k3" } });
    expect(await problemOf(ask())).toMatchObject({
      code: "in_use",
      detail: expect.stringContaining("Networks are still on host") as unknown,
    });
    await ended(ok(deleteNetwork({ client: service.client, path: { network: "holding" } })));
    expect((await ask()).response?.status).toBe(204);
  });
});
