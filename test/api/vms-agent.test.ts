import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createNetwork, getVm, listEvents, type Vm } from "../../openapi/sdk/index.ts";
import { addHost, addVm, ok, startTestService, type TestService } from "../fixtures/service.ts";

// An inventory a second, and a question to each agent every other.

const WITH_AGENTS = "sim+kvm://with?guestAgents=1";
const PATIENCE = { timeout: 60_000, interval: 50 };
let service: TestService;

beforeAll(async () => {
  service = await startTestService();
  await addHost(service, "with", WITH_AGENTS);
  await addHost(service, "without", "sim+kvm://without");
  await addHost(service, "xen", "sim+xen://xen");
  const body = { name: "lab", kind: "isolated" as const, ipv4: { cidr: "10.88.0.0/24" } };
  await ok(createNetwork({ client: service.client, body }));
});
afterAll(async () => {
  await service.stop();
});

async function statusOf(vm: string): Promise<Vm["status"]> {
  return (await ok(getVm({ client: service.client, path: { vm } }))).status;
}

const agentOf = async (vm: string): Promise<Vm["status"]["agent"]> => (await statusOf(vm)).agent;
const NOTHING = { hostName: null, osName: null, kernelRelease: null, observedAt: null, error: null };

describe("the agent in a guest", () => {
  it("tells what it knows, beside what the host saw, while the guest is on", async () => {
    const nics = [{ name: "eth0", network: "lab" }];
    const vm = await addVm(service, "talks", { nics, placement: { host: "with" } });
    await expect
      .poll(() => agentOf("talks"), PATIENCE)
      .toMatchObject({
        ...{ state: "connected", hostName: vm.status.domainName, osName: "Simulated OS 1", error: null },
      });
    expect((await agentOf("talks")).observedAt).not.toBeNull();
    const address = vm.status.nics[0]?.addresses[0];
    const seen = async () => (await statusOf("talks")).addresses;
    await expect.poll(seen, PATIENCE).toEqual([{ address, nic: "eth0", source: "lease" }]);
    await service.sim.setDomainPower(WITH_AGENTS, vm.id, "off");
    await expect.poll(() => agentOf("talks"), PATIENCE).toEqual({ state: "disconnected", ...NOTHING });
    const query = { subject: vm.id, type: ["vm.agent.changed"] };
    const told = async () =>
      (await ok(listEvents({ client: service.client, query }))).items.map(({ data }) => data["state"]);
    await expect.poll(told, PATIENCE).toEqual(["connected", "connected", "disconnected"]);
  });

  it("that hangs holds up nothing, and is shown", async () => {
    await service.sim.hangNextCalls(WITH_AGENTS, "askAgent", 1);
    await addVm(service, "hangs", { placement: { host: "with" } });
    await addVm(service, "beside", { placement: { host: "with" } });
    await expect
      .poll(() => agentOf("hangs"), PATIENCE)
      .toMatchObject({
        ...{ state: "connected", error: expect.stringMatching(/./) as string },
      });
    await expect.poll(() => agentOf("hangs"), PATIENCE).toMatchObject({ error: null });
    await expect.poll(async () => (await agentOf("beside")).hostName, PATIENCE).not.toBeNull();
  });

  it("is not there in a guest that has none, and cannot be where the host has no way to one", async () => {
    await addVm(service, "mute", { placement: { host: "without" } });
    expect(await agentOf("mute")).toEqual({ state: "disconnected", ...NOTHING });
    await addVm(service, "on-xen", {
      guestType: "pv",
      boot: { firmware: "pvgrub" },
      placement: { host: "xen" },
    });
    expect(await agentOf("on-xen")).toEqual({ state: "unsupported", ...NOTHING });
  });
});
