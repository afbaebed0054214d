import { expect } from "vitest";
import type { HostEvent } from "../../../src/hypervisors/hypervisor.ts";
import type { Behaviour } from "./record.ts";
import { type Scene } from "./scene.ts";

/** Events: what the host tells by itself. */
export function eventBehaviours(scene: Scene, behaviour: Behaviour): void {
  behaviour("events", "each change that we make is told", async () => {
    const heard = listen(scene);
    const spec = await scene.define();
    await heard.next(spec.uuid);
    await scene.connection.startDomain(spec.uuid, scene.call());
    await heard.next(spec.uuid);
    await scene.connection.forceOffDomain(spec.uuid, scene.call());
    await heard.next(spec.uuid);
    await scene.connection.removeDomain(spec.uuid, scene.call());
    await heard.next(spec.uuid);
  });

  behaviour("events", "a change over another connection is told", async () => {
    const other = await scene.connect();
    const spec = await scene.define();
    const heard = listen(scene);
    await other.startDomain(spec.uuid, scene.call());
    await heard.next(spec.uuid);
  });

  behaviour("events", "a listener that has gone hears no more, the others do", async () => {
    const gone: HostEvent[] = [];
    const stop = scene.connection.watch((event) => gone.push(event));
    const heard = listen(scene);
    stop();
    const spec = await scene.define();
    await heard.next(spec.uuid);
    expect(gone).toEqual([]);
  });

  const { cutDomainPower, crashDomain } = scene.contract.hooks ?? {};
  if (cutDomainPower !== undefined) {
    behaviour("events", "a domain that is switched off behind our back is told, and seen off", async () => {
      const spec = await scene.start();
      const heard = listen(scene);
      await cutDomainPower(scene.world, spec.uuid);
      await heard.next(spec.uuid);
      await scene.powerBecomes(spec, "off");
    });
  }
  if (crashDomain !== undefined) {
    behaviour("events", "a domain that crashes is told, and seen crashed", async () => {
      const spec = await scene.start();
      const heard = listen(scene);
      await crashDomain(scene.world, spec.uuid);
      await heard.next(spec.uuid);
      await scene.powerBecomes(spec, "crashed");
    });
  }
}

/** Listens until the end of the behaviour; `next` waits for an event since the last `next`, and forgets what came. */
function listen(scene: Scene): { next(uuid: string): Promise<void> } {
  let events: HostEvent[] = [];
  const stop = scene.connection.watch((event) => events.push(event));
  scene.afterwards(async () => {
    stop();
  });
  return {
    async next(uuid) {
      const concerns = (event: HostEvent): boolean => event.kind === "resync" || event.uuid === uuid;
      await scene.eventually(`an event of ${uuid}`, () => events.some(concerns));
      events = [];
    },
  };
}
