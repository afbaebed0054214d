import { expect } from "vitest";
import { newId, type VmId } from "../../../src/lib/ids.ts";
import type { Behaviour } from "./record.ts";
import { expectRefusal, type Scene } from "./scene.ts";

/** Defining, observing and removing domains. */
export function definitionBehaviours(scene: Scene, behaviour: Behaviour): void {
  behaviour("required", "a domain that is not there is observed as none", async () => {
    expect(await scene.observe(scene.spec())).toBeNull();
  });

  behaviour(
    "required",
    "a defined domain is off, and observed as it was specified, with our mark",
    async () => {
      const spec = await scene.define({ cpuCount: 2 });
      const seen = await scene.observe(spec);
      expect({ ...seen, reason: null }).toEqual({
        uuid: spec.uuid,
        name: spec.name,
        power: "off",
        reason: null,
        cpuCount: 2,
        memoryMib: spec.memoryMib,
        installationId: spec.installationId,
        vmId: spec.uuid,
        autostart: false,
        ...(scene.contract.declared.includes("guestAgent") ? { agent: "disconnected" } : {}),
      });
    },
  );

  behaviour("required", "defining twice leaves one domain", async () => {
    const spec = await scene.define();
    await scene.connection.defineDomain(spec, scene.call());
    const { domains } = await scene.connection.inventory(scene.call());
    expect(domains.filter(({ name }) => name === spec.name)).toHaveLength(1);
  });

  behaviour("required", "defining again replaces the definition", async () => {
    const spec = await scene.define();
    await scene.connection.defineDomain(
      { ...spec, memoryMib: spec.memoryMib + 64, cpuCount: 2 },
      scene.call(),
    );
    expect(await scene.observe(spec)).toMatchObject({ memoryMib: spec.memoryMib + 64, cpuCount: 2 });
  });

  behaviour("required", "a name that another domain has is refused", async () => {
    const spec = await scene.define();
    const second = scene.spec({ name: spec.name });
    await expectRefusal(scene.connection.defineDomain(second, scene.call()), "already-exists");
    expect(await scene.observe(second)).toBeNull();
    expect(await scene.observe(spec)).not.toBeNull();
  });

  behaviour("required", "the inventory is complete, and says the same as an observation", async () => {
    const specs = [await scene.define(), await scene.define({ cpuCount: 2 }), await scene.start()];
    const { domains } = await scene.connection.inventory(scene.call());
    for (const spec of specs) {
      const listed = domains.filter(({ uuid }) => uuid === spec.uuid);
      expect(listed).toEqual([await scene.observe(spec)]);
    }
    expect(new Set(domains.map(({ uuid }) => uuid)).size).toBe(domains.length);
  });

  behaviour("required", "a removed domain is gone, and removing it again is fine", async () => {
    const spec = await scene.define();
    await scene.connection.removeDomain(spec.uuid, scene.call());
    expect(await scene.observe(spec)).toBeNull();
    await scene.connection.removeDomain(spec.uuid, scene.call());
    const { domains } = await scene.connection.inventory(scene.call());
    expect(domains.map(({ uuid }) => uuid)).not.toContain(spec.uuid);
  });

  behaviour("required", "a removed domain can be defined again", async () => {
    const spec = await scene.define();
    await scene.connection.removeDomain(spec.uuid, scene.call());
    await scene.connection.defineDomain(spec, scene.call());
    expect(await scene.power(spec)).toBe("off");
  });

  behaviour("required", "calls on a domain that is not there say so", async () => {
    const uuid = newId<VmId>();
    const { connection } = scene;
    await expectRefusal(connection.startDomain(uuid, scene.call()), "not-found");
    await expectRefusal(connection.requestShutdown(uuid, scene.call()), "not-found");
    await expectRefusal(connection.forceOffDomain(uuid, scene.call()), "not-found");
  });

  behaviour("required", "many calls at once on one connection all take effect", async () => {
    const specs = Array.from({ length: 20 }, () => scene.spec());
    await Promise.all(specs.map((spec) => scene.connection.defineDomain(spec, scene.call())));
    const seen = await Promise.all(specs.map((spec) => scene.power(spec)));
    expect(seen).toEqual(specs.map(() => "off"));
  });
}
