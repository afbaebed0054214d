import { expect } from "vitest";
import type { Call, DomainSpec, HostConnection } from "../../../src/hypervisors/hypervisor.ts";
import type { Ability, Behaviour } from "./record.ts";
import { expectRefusal, present, type Scene } from "./scene.ts";

interface Change {
  readonly ability: Ability;
  readonly name: string;
  readonly from: "none" | "off" | "running" | "paused" | "saved";
  readonly send: (connection: HostConnection, spec: DomainSpec, call: Call) => Promise<void>;
}

const CHANGES: readonly Change[] = [
  {
    ability: "required",
    name: "define",
    from: "none",
    send: (host, spec, call) => host.defineDomain(spec, call),
  },
  {
    ability: "start",
    name: "start",
    from: "off",
    send: (host, { uuid }, call) => host.startDomain(uuid, call),
  },
  {
    ability: "gracefulStop",
    name: "shutdown request",
    from: "running",
    send: (host, { uuid }, call) => host.requestShutdown(uuid, call),
  },
  {
    ability: "stop",
    name: "force-off",
    from: "running",
    send: (host, { uuid }, call) => host.forceOffDomain(uuid, call),
  },
  {
    ability: "required",
    name: "remove",
    from: "off",
    send: (host, { uuid }, call) => host.removeDomain(uuid, call),
  },
  {
    ability: "pause",
    name: "pause",
    from: "running",
    send: (host, { uuid }, call) => present(host.pause).pauseDomain(uuid, call),
  },
  {
    ability: "pause",
    name: "resume",
    from: "paused",
    send: (host, { uuid }, call) => present(host.pause).resumeDomain(uuid, call),
  },
  {
    ability: "reboot",
    name: "reboot",
    from: "running",
    send: (host, { uuid }, call) => present(host.rebootDomain)(uuid, call),
  },
  {
    ability: "reset",
    name: "reset",
    from: "running",
    send: (host, { uuid }, call) => present(host.resetDomain)(uuid, call),
  },
  {
    ability: "save",
    name: "save",
    from: "running",
    send: (host, { uuid }, call) => present(host.saveDomain)(uuid, call),
  },
  {
    ability: "save",
    name: "start of a saved domain",
    from: "saved",
    send: (host, { uuid }, call) => host.startDomain(uuid, call),
  },
  {
    ability: "save",
    name: "force-off of a saved domain",
    from: "saved",
    send: (host, { uuid }, call) => host.forceOffDomain(uuid, call),
  },
];

/** What the caller of a call can do to it: forbid it, give it up, limit it. */
export function limitBehaviours(scene: Scene, behaviour: Behaviour): void {
  const has = (ability: Ability): boolean =>
    ability === "required" || scene.contract.declared.includes(ability);
  for (const change of CHANGES.filter(({ ability }) => has(ability))) {
    behaviour(
      change.ability,
      `${change.name} asks for the right to change the host, and without it nothing happens`,
      async () => {
        const spec = await bringTo(scene, change.from);
        const before = await scene.observe(spec);
        const refusal = new Error("the lease is over");
        const beforeSend = (): never => {
          throw refusal;
        };
        await expect(change.send(scene.connection, spec, scene.call({ beforeSend }))).rejects.toBe(refusal);
        expect(await scene.observe(spec)).toEqual(before);
      },
    );
  }

  behaviour("required", "a call whose signal has ended is not sent", async () => {
    const spec = scene.spec();
    const signal = AbortSignal.abort();
    await expectRefusal(scene.connection.defineDomain(spec, scene.call({ signal })), "aborted");
    expect(await scene.observe(spec)).toBeNull();
  });

  behaviour("required", "a call that is given up rejects at once, and the connection lives on", async () => {
    const stop = new AbortController();
    const inventory = scene.connection.inventory(scene.call({ signal: stop.signal }));
    stop.abort();
    await expectRefusal(inventory, "aborted");
    await scene.connection.inventory(scene.call());
  });

  const hang = scene.contract.hooks?.hang;
  if (hang === undefined) return;

  behaviour("required", "a call that is not answered ends at its deadline", async () => {
    const spec = await scene.define();
    scene.afterwards(await hang(scene.world));
    await expectRefusal(scene.connection.startDomain(spec.uuid, scene.call({ timeoutMs: 200 })), "timeout");
  });

  behaviour("required", "a call that is not answered ends when it is given up", async () => {
    const spec = await scene.define();
    scene.afterwards(await hang(scene.world));
    const stop = new AbortController();
    const started = scene.connection.startDomain(spec.uuid, scene.call({ signal: stop.signal }));
    stop.abort();
    await expectRefusal(started, "aborted");
  });
}

async function bringTo(scene: Scene, from: Change["from"]): Promise<DomainSpec> {
  if (from === "none") return scene.spec();
  if (from === "off") return scene.define();
  const spec = await scene.start();
  if (from === "paused") await scene.connection.pause?.pauseDomain(spec.uuid, scene.call());
  if (from === "saved") await scene.connection.saveDomain?.(spec.uuid, scene.call());
  return spec;
}
