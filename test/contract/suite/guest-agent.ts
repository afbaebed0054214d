import { expect } from "vitest";
import type { AgentReport, DomainSpec, GuestAgentAbility } from "../../../src/hypervisors/hypervisor.ts";
import type { Behaviour } from "./record.ts";
import { expectRefusal, present, type Scene } from "./scene.ts";
import type { TestAgent } from "./world.ts";

/** More than libvirt itself waits. */
const ANSWER_TIMEOUT_MS = 12_000;

/** The agent in a guest: whether there is one, what it tells, and that nobody waits for it. */
export function guestAgentBehaviours(scene: Scene, behaviour: Behaviour): void {
  const { giveAgent } = scene.contract.hooks ?? {};
  const agents = (): GuestAgentAbility => present(scene.connection.guestAgent);
  const stateOf = async ({ uuid }: DomainSpec) =>
    (await scene.connection.observeDomain(uuid, scene.call()))?.agent;
  const ask = ({ uuid }: DomainSpec): Promise<AgentReport> => agents().askAgent(uuid, scene.call());

  async function startWith(agent: TestAgent): Promise<DomainSpec> {
    const spec = await scene.define();
    await present(giveAgent)(scene.world, spec, scene.connection, agent);
    await scene.connection.startDomain(spec.uuid, scene.call());
    await scene.guestUp(spec);
    await scene.eventually("the agent is connected", async () => (await stateOf(spec)) === "connected");
    return spec;
  }

  behaviour("guestAgent", "a guest that is off has none that is connected, and is not asked", async () => {
    const spec = await scene.define();
    expect(await stateOf(spec)).toBe("disconnected");
    await expectRefusal(ask(spec), "invalid-state");
    await expectRefusal(agents().askAgent(scene.spec().uuid, scene.call()), "not-found");
  });

  if (giveAgent === undefined) return;

  behaviour("guestAgent", "an agent that runs is seen, tells of its guest, and goes with it", async () => {
    const spec = await startWith("answering");
    const { domains } = await scene.connection.inventory(scene.call());
    expect(domains.find(({ uuid }) => uuid === spec.uuid)?.agent).toBe("connected");
    const report = await ask(spec);
    expect(report.hostName).not.toBeNull();
    const own = new Set(spec.nics.map(({ macAddress }) => macAddress));
    expect(report.addresses.every(({ macAddress }) => own.has(macAddress))).toBe(true);

    await scene.connection.pause?.pauseDomain(spec.uuid, scene.call());
    await expectRefusal(ask(spec), "invalid-state");
    await scene.connection.forceOffDomain(spec.uuid, scene.call());
    expect(await stateOf(spec)).toBe("disconnected");
  });

  behaviour("guestAgent", "an agent that is silent is given up, and holds up nothing", async () => {
    const spec = await startWith("silent");
    const asking = agents().askAgent(spec.uuid, scene.call({ timeoutMs: ANSWER_TIMEOUT_MS }));
    const refused = expectRefusal(asking, "timeout");
    await scene.connection.inventory(scene.call());
    await scene.connection.observeDomain(spec.uuid, scene.call());
    const other = await scene.define();
    await scene.connection.startDomain(other.uuid, scene.call());
    await refused;
    await scene.connection.forceOffDomain(spec.uuid, scene.call());
    expect(await stateOf(spec)).toBe("disconnected");
  });
}
