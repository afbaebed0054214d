import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  attachVmNic,
  createNetwork,
  detachVmNic,
  getNetwork,
  getVm,
  startVm,
  stopVm,
  updateVm,
  type Vm,
} from "../../openapi/sdk/index.ts";
import {
  addHost,
  addVm,
  ok,
  operationEnd,
  problemOf,
  startTestService,
  type TestService,
} from "../fixtures/service.ts";

const KVM = "sim+kvm://k1?cpus=64&memoryGib=256";

let service: TestService;
beforeAll(async () => {
  service = await startTestService();
  await addHost(service, "k1", KVM);
  const body = { name: "lan", kind: "nat" as const, ipv4: { cidr: "10.40.0.0/24" } };
  await ok(createNetwork({ client: service.client, body }));
});
afterAll(async () => {
  await service.stop();
});

type Nic = Parameters<typeof attachVmNic>[0]["body"];

const attach = (vm: string, nic: Nic) => attachVmNic({ client: service.client, path: { vm }, body: nic });
const detach = (vm: string, nic: string) => detachVmNic({ client: service.client, path: { vm, nic } });
const vmNow = (vm: string): Promise<Vm> => ok(getVm({ client: service.client, path: { vm } }));

async function ended(asked: Promise<{ readonly operation: { readonly id: string } }>): Promise<string> {
  return (await operationEnd(service, (await asked).operation.id)).state;
}

interface OnHost {
  readonly live: readonly string[] | null;
  readonly defined: readonly string[];
}

/** MAC addresses that the simulated guest has, and will have at its next start. */
async function onHost(id: string): Promise<OnHost> {
  const [row] = await service.database.db.$queryRaw<OnHost[]>`
    SELECT jsonb_path_query_array(live_nics, '$[*].macAddress') AS live,
      jsonb_path_query_array(definition->'nics', '$[*].macAddress') AS defined
    FROM sim.domain WHERE uuid = ${id}::uuid`;
  if (row === undefined) throw new Error(`no domain ${id}`);
  return row;
}

const leases = async (): Promise<readonly unknown[]> =>
  await service.database.db.$queryRaw`SELECT l FROM sim.network n, jsonb_array_elements(n.leases) l`;

describe("a NIC", () => {
  it("is plugged into a VM that runs, with its address and lease, and taken out with both", async () => {
    const { id } = await addVm(service, "runs", { nics: [{ name: "eth0", network: "default" }] });
    const { vm, operation } = await ok(attach("runs", { name: "eth1", network: "lan" }));
    expect(operation.kind).toBe("vm.attachNic");
    expect(vm.spec.nics).toEqual([
      { name: "eth0", network: "default" },
      { name: "eth1", network: "lan" },
    ]);
    expect(vm.status.nics[1]).toMatchObject({ name: "eth1", addresses: ["10.40.0.2"] });
    expect((await operationEnd(service, operation.id)).state).toBe("succeeded");
    const macs = vm.status.nics.map(({ macAddress }) => macAddress);
    expect(await onHost(id)).toEqual({ live: macs, defined: macs });
    expect(await leases()).toHaveLength(1);
    // What is defined is what is asked: nothing waits for a restart.
    const { status, generation } = await vmNow("runs");
    expect(status).toMatchObject({ conditions: [], observedGeneration: generation });

    expect(await ended(ok(detach("runs", "eth1")))).toBe("succeeded");
    expect(await onHost(id)).toEqual({ live: macs.slice(0, 1), defined: macs.slice(0, 1) });
    expect(await leases()).toEqual([]);
    const after = await vmNow("runs");
    expect(after.status.nics.map(({ name }) => name)).toEqual(["eth0"]);
    const network = await ok(getNetwork({ client: service.client, path: { network: "lan" } }));
    expect(network.addressesReserved).toBe(0);
  });

  it("goes into the definition of a VM that is off, and out of it", async () => {
    const { id } = await addVm(service, "is-off", { runPolicy: "stopped" });
    expect(await ended(ok(attach("is-off", { name: "eth0", network: "lan" })))).toBe("succeeded");
    const [mac] = (await vmNow("is-off")).status.nics.map(({ macAddress }) => macAddress);
    expect(await onHost(id)).toEqual({ live: null, defined: [mac] });
    await ended(ok(startVm({ client: service.client, path: { vm: "is-off" }, body: {} })));
    expect(await onHost(id)).toEqual({ live: [mac], defined: [mac] });
    await ended(ok(stopVm({ client: service.client, path: { vm: "is-off" }, body: { mode: "force" } })));
    expect(await ended(ok(detach("is-off", "eth0")))).toBe("succeeded");
    expect(await onHost(id)).toEqual({ live: null, defined: [] });
  });

  it("that cannot be plugged in leaves nothing behind, and the VM as it was", async () => {
    const { id } = await addVm(service, "unlucky", { nics: [{ name: "eth0", network: "default" }] });
    const before = await onHost(id);
    await service.sim.failNextCalls(KVM, "attachNic", 5);
    expect(await ended(ok(attach("unlucky", { name: "eth1", network: "lan" })))).toBe("failed");
    await service.sim.clearFaults(KVM);
    expect(await onHost(id)).toEqual(before);
    expect(await leases()).toEqual([]);
    const vm = await vmNow("unlucky");
    expect(vm.spec.nics.map(({ name }) => name)).toEqual(["eth0"]);
    expect(vm.status.nics.map(({ name }) => name)).toEqual(["eth0"]);
    expect(vm.status.conditions.map(({ type }) => type)).toEqual(["OperationFailed"]);
    // Its name and address are free again.
    expect(await ended(ok(attach("unlucky", { name: "eth1", network: "lan" })))).toBe("succeeded");
    expect((await vmNow("unlucky")).status.nics[1]?.addresses).toEqual(["10.40.0.2"]);
  });

  it("that the guest does not let go stays, and stands in the spec again", async () => {
    const { id } = await addVm(service, "stubborn", { nics: [{ name: "eth0", network: "lan" }] });
    const before = await onHost(id);
    await service.sim.failNextCalls(KVM, "detachNic", 5);
    expect(await ended(ok(detach("stubborn", "eth0")))).toBe("failed");
    await service.sim.clearFaults(KVM);
    expect(await onHost(id)).toEqual(before);
    const { spec, status } = await vmNow("stubborn");
    expect(spec.nics).toMatchObject([{ name: "eth0", network: "lan" }]);
    expect(status.nics).toMatchObject([{ name: "eth0" }]);
    expect(await ended(ok(detach("stubborn", "eth0")))).toBe("succeeded");
  });

  it("is refused where it cannot be", async () => {
    await addVm(service, "full", { nics: [{ name: "eth0", network: "default" }] });
    const refused = (vm: string, nic: Nic) => problemOf(attach(vm, nic));
    expect(await refused("full", { name: "eth0", network: "lan" })).toMatchObject({ code: "name_taken" });
    expect(await refused("full", { name: "eth1", network: "nowhere" })).toMatchObject({
      ...{ httpStatus: 422, violations: [{ pointer: "/network" }] },
    });
    expect(await problemOf(detach("full", "eth7"))).toMatchObject({ httpStatus: 404, code: "not_found" });
    expect(await problemOf(detach("missing", "eth0"))).toMatchObject({ httpStatus: 404 });
    const patch = updateVm({
      client: service.client,
      path: { vm: "full" },
      body: { spec: { nics: [] } } as never,
    });
    expect(await problemOf(patch)).toMatchObject({ httpStatus: 422 });
    const stale = attachVmNic({
      ...{ client: service.client, path: { vm: "full" }, body: { name: "eth1", network: "lan" } },
      headers: { "If-Match": '"99"' },
    });
    expect(await problemOf(stale)).toMatchObject({ code: "precondition_failed" });
    for (let n = 1; n < 8; n++) await ok(attach("full", { name: `more-${n}`, network: "default" }));
    expect(await refused("full", { name: "ninth", network: "default" })).toMatchObject({ code: "conflict" });
  });
});
