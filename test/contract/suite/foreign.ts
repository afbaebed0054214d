import { expect } from "vitest";
import type { Call, DomainSpec, HostConnection } from "../../../src/hypervisors/hypervisor.ts";
import { asId, type InstallationId, newId, type VmId } from "../../../src/lib/ids.ts";
import type { Behaviour } from "./record.ts";
import { expectRefusal, type Scene } from "./scene.ts";

type Send = (connection: HostConnection, uuid: string, call: Call) => Promise<void> | undefined;

/** Every call that could change a domain. */
const CHANGES: readonly Send[] = [
  (host, uuid, call) => host.startDomain(uuid, call),
  (host, uuid, call) => host.requestShutdown(uuid, call),
  (host, uuid, call) => host.forceOffDomain(uuid, call),
  (host, uuid, call) => host.removeDomain(uuid, call),
  (host, uuid, call) => host.pause?.pauseDomain(uuid, call),
  (host, uuid, call) => host.pause?.resumeDomain(uuid, call),
  (host, uuid, call) => host.rebootDomain?.(uuid, call),
  (host, uuid, call) => host.resetDomain?.(uuid, call),
];

/** Domains that are not ours: listed and observed, never changed. */
export function foreignBehaviours(scene: Scene, behaviour: Behaviour): void {
  const { addForeignDomain, removeForeignDomain } = scene.contract.hooks ?? {};
  if (addForeignDomain === undefined) return;
  const marks: readonly (readonly [string, string | null])[] = [
    ["no mark", null],
    ["another installation's mark", newId<InstallationId>()],
  ];
  for (const [what, mark] of marks) {
    behaviour("required", `a domain with ${what} is listed, and every change of it refused`, async () => {
      const uuid = await addForeignDomain(scene.world, mark);
      scene.afterwards(async () => removeForeignDomain?.(scene.world, uuid));
      const before = await scene.observe({ uuid });
      expect(before?.installationId).toBe(mark);
      const { domains } = await scene.connection.inventory(scene.call());
      expect(domains.filter((domain) => domain.uuid === uuid)).toEqual([before]);
      for (const send of CHANGES) {
        const sent = send(scene.connection, uuid, scene.call());
        if (sent !== undefined) await expectRefusal(sent, "foreign");
      }
      await expectRefusal(scene.connection.defineDomain(specOf(scene, uuid), scene.call()), "foreign");
      expect(await scene.observe({ uuid })).toEqual(before);
    });
  }
}

/** A specification that would replace the foreign domain's; not registered for removal, for it is not ours. */
function specOf(scene: Scene, uuid: string): DomainSpec {
  return { ...scene.spec(), uuid: asId<VmId>(uuid), name: `contract-takeover-${uuid.slice(-12)}` };
}
