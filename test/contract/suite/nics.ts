import { expect } from "vitest";
import type { DomainNic, DomainSpec, NicAbility } from "../../../src/hypervisors/hypervisor.ts";
import type { Behaviour } from "./record.ts";
import { expectRefusal, present, type Scene } from "./scene.ts";

/** NICs of guests that are on: plugged in and out, each call twice. */
export function nicBehaviours(scene: Scene, behaviour: Behaviour): void {
  const nics = (): NicAbility => present(scene.connection.nics);
  const nic = (network = scene.world.network ?? ""): DomainNic => {
    const [first] = scene.spec().nics;
    return { name: "eth9", network, macAddress: first?.macAddress ?? "" };
  };
  const listed = async (spec: DomainSpec): Promise<readonly string[]> =>
    (await nics().listNics(spec.uuid, scene.call())).toSorted();
  const own = ({ nics: defined }: DomainSpec): readonly string[] =>
    defined.map(({ macAddress }) => macAddress);

  behaviour("nicHotplug", "a NIC is plugged into a guest that runs, once, and taken out again", async () => {
    const spec = await scene.start();
    await scene.guestUp(spec);
    expect(await listed(spec)).toEqual(own(spec));
    const more = nic();
    await nics().attachNic(spec.uuid, more, scene.call());
    await nics().attachNic(spec.uuid, more, scene.call());
    expect(await listed(spec)).toEqual([...own(spec), more.macAddress].toSorted());
    await nics().detachNic(spec.uuid, more, scene.call());
    expect(await listed(spec)).toEqual(own(spec));
    await nics().detachNic(spec.uuid, more, scene.call());
  });

  behaviour("nicHotplug", "what was plugged in is not in the definition", async () => {
    const spec = await scene.start();
    await nics().attachNic(spec.uuid, nic(), scene.call());
    await scene.connection.forceOffDomain(spec.uuid, scene.call());
    await scene.connection.startDomain(spec.uuid, scene.call());
    expect(await listed(spec)).toEqual(own(spec));
  });

  behaviour("nicHotplug", "a guest that is off has none, and one that is not there says so", async () => {
    const spec = await scene.define();
    await expectRefusal(nics().attachNic(spec.uuid, nic(), scene.call()), "invalid-state");
    await expectRefusal(nics().detachNic(spec.uuid, nic(), scene.call()), "invalid-state");
    await expectRefusal(nics().listNics(spec.uuid, scene.call()), "invalid-state");
    await expectRefusal(nics().attachNic(scene.spec().uuid, nic(), scene.call()), "not-found");
  });

  behaviour(
    "nicHotplug",
    "a network that the host does not have is refused, and nothing is plugged in",
    async () => {
      const spec = await scene.start();
      const lost = nics().attachNic(spec.uuid, nic("no-such-net"), scene.call());
      await expectRefusal(lost, "not-found", "invalid-spec");
      expect(await listed(spec)).toEqual(own(spec));
    },
  );
}
