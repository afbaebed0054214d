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
  (host, uuid, call) => host.saveDomain?.(uuid, call),
];

/** Domains that are not ours: listed and observed, never changed. */
export function foreignBehaviours(scene: Scene, behaviour: Behaviour): void {
  if (scene.contract.hypervisor === "xen") domain0(scene, behaviour);
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
      expect((await scene.observe({ uuid }))?.installationId).toBe(mark);
      await neverChanged(scene, uuid);
    });
  }
}

/** The domain that a Xen host runs in itself: to shut it down is to switch the host off. */
function domain0(scene: Scene, behaviour: Behaviour): void {
  behaviour("required", "Domain-0 is listed as nobody's, and every change of it refused", async () => {
    const { domains } = await scene.connection.inventory(scene.call());
    const listed = domains.filter(({ name }) => name === "Domain-0");
    expect(listed).toMatchObject([{ power: "running", installationId: null, vmId: null }]);
    await neverChanged(scene, listed[0]?.uuid ?? "");
  });
}

async function neverChanged(scene: Scene, uuid: string): Promise<void> {
  const before = await scene.observe({ uuid });
  const { domains } = await scene.connection.inventory(scene.call());
  expect(domains.filter((domain) => domain.uuid === uuid)).toEqual([before]);
  for (const send of CHANGES) {
    const sent = send(scene.connection, uuid, scene.call());
    if (sent !== undefined) await expectRefusal(sent, "foreign");
  }
  await expectRefusal(scene.connection.defineDomain(specOf(scene, uuid), scene.call()), "foreign");
  expect(await scene.observe({ uuid })).toEqual(before);
}

/** A specification that would replace the foreign domain's; not registered for removal, for it is not ours. */
function specOf(scene: Scene, uuid: string): DomainSpec {
  return { ...scene.spec(), uuid: asId<VmId>(uuid), name: `contract-takeover-${uuid.slice(-12)}` };
}
