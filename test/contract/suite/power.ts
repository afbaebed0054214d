import { expect } from "vitest";
import type {
  Call,
  Capability,
  DomainSpec,
  Firmware,
  HostConnection,
  ObservedPower,
} from "../../../src/hypervisors/hypervisor.ts";
import type { Ability, Behaviour } from "./record.ts";
import { expectRefusal, present, type Scene } from "./scene.ts";

interface PowerCall {
  readonly ability: Ability;
  readonly name: string;
  readonly send: (connection: HostConnection, uuid: string, call: Call) => Promise<void>;
}

const start: PowerCall = {
  ability: "start",
  name: "start",
  send: (host, ...args) => host.startDomain(...args),
};
const forceOff: PowerCall = {
  ability: "stop",
  name: "force-off",
  send: (host, ...args) => host.forceOffDomain(...args),
};
const remove: PowerCall = {
  ability: "stop",
  name: "remove",
  send: (host, ...args) => host.removeDomain(...args),
};
const shutdown: PowerCall = {
  ability: "gracefulStop",
  name: "shutdown request",
  send: (host, ...args) => host.requestShutdown(...args),
};
const pause: PowerCall = {
  ability: "pause",
  name: "pause",
  send: (host, ...args) => present(host.pause).pauseDomain(...args),
};
const resume: PowerCall = {
  ability: "pause",
  name: "resume",
  send: (host, ...args) => present(host.pause).resumeDomain(...args),
};
const reboot: PowerCall = {
  ability: "reboot",
  name: "reboot",
  send: (host, ...args) => present(host.rebootDomain)(...args),
};
const reset: PowerCall = {
  ability: "reset",
  name: "reset",
  send: (host, ...args) => present(host.resetDomain)(...args),
};
const save: PowerCall = {
  ability: "save",
  name: "save",
  send: (host, ...args) => present(host.saveDomain)(...args),
};

type From = "saved" | "off" | "running" | "paused" | "crashed";
/** What a call leads to: a power, one of several, no domain at all, or a refusal that changes nothing. */
type Outcome = ObservedPower | readonly ObservedPower[] | "gone" | "refused";

/** What each call does from each power. A pair that is not here is the hypervisor's own business. */
const TRANSITIONS: readonly (readonly [From, PowerCall, Outcome])[] = [
  ["off", start, "running"],
  ["off", forceOff, "off"],
  ["off", shutdown, "off"],
  ["off", pause, "refused"],
  ["off", resume, "refused"],
  ["off", reboot, "refused"],
  ["off", reset, "refused"],
  ["running", start, "running"],
  ["running", forceOff, "off"],
  ["running", remove, "refused"],
  ["running", pause, "paused"],
  ["running", resume, "running"],
  ["running", reset, "running"],
  ["paused", start, "paused"],
  ["paused", forceOff, "off"],
  ["paused", remove, "refused"],
  ["paused", pause, "paused"],
  ["paused", resume, "running"],
  ["crashed", start, "running"],
  ["crashed", forceOff, ["off", "crashed"]],
  ["crashed", remove, "gone"],
  ["crashed", pause, "refused"],
  ["off", save, "refused"],
  ["running", save, "saved"],
  ["paused", save, "saved"],
  ["saved", save, "saved"],
  ["crashed", save, "refused"],
  ["saved", start, "running"],
  ["saved", forceOff, "off"],
  ["saved", remove, "gone"],
  ["saved", shutdown, "saved"],
  ["saved", pause, "refused"],
  ["saved", resume, "refused"],
  ["saved", reboot, "refused"],
];

/** Power: every transition, calls twice, and what guests do by themselves. */
export function powerBehaviours(scene: Scene, behaviour: Behaviour): void {
  const { declared, hooks } = scene.contract;
  const has = (ability: Ability): boolean => ability === "required" || declared.includes(ability);
  const canBe = (from: From): boolean =>
    ({
      off: true,
      running: true,
      paused: has("pause"),
      saved: has("save"),
      crashed: hooks?.crashDomain !== undefined,
    })[from];

  for (const [from, call, outcome] of TRANSITIONS) {
    if (!has(call.ability) || !canBe(from)) continue;
    behaviour(
      from === "saved" ? "save" : call.ability,
      `${call.name} of a domain that is ${from}: ${describeOutcome(outcome)}`,
      async () => {
        const spec = await bringTo(scene, from);
        const sent = call.send(scene.connection, spec.uuid, scene.call());
        if (outcome === "refused") await expectRefusal(sent, "invalid-state");
        else await sent;
        const power = await scene.power(spec);
        if (outcome === "gone") expect(power).toBeNull();
        else expect([outcome === "refused" ? from : outcome].flat()).toContain(power);
      },
    );
  }

  missingParts(scene, behaviour);
  cdroms(scene, behaviour);
  if (has("gracefulStop")) gracefulStop(scene, behaviour);
  if (has("reboot") && scene.contract.guestsRestart !== false) restart(scene, behaviour, reboot);
  if (has("reboot") && scene.contract.guestsRestart === false) rebootWithoutDrivers(scene, behaviour);
  if (has("reset")) restart(scene, behaviour, reset);
  if (has("save")) saving(scene, behaviour);
  if (has("directKernel")) directKernel(scene, behaviour);
  if (has("firmwareBios")) firmware(scene, behaviour, "firmwareBios", "bios");
  if (has("firmwareUefi")) firmware(scene, behaviour, "firmwareUefi", "uefi");
  if (has("firmwareUefi")) redefinedUefi(scene, behaviour);
  if (has("firmwarePvgrub")) firmware(scene, behaviour, "firmwarePvgrub", "pvgrub");
}

function describeOutcome(outcome: Outcome): string {
  if (typeof outcome !== "string") return outcome.join(" or ");
  return outcome === "refused" ? "refused, nothing changed" : outcome;
}

async function bringTo(scene: Scene, from: From): Promise<DomainSpec> {
  if (from === "off") return scene.define();
  const spec = await scene.start();
  if (from === "paused") await pause.send(scene.connection, spec.uuid, scene.call());
  // It does its part of being saved: one that has hardly begun to boot cannot.
  if (from === "saved") await scene.guestUp(spec);
  if (from === "saved") await save.send(scene.connection, spec.uuid, scene.call());
  if (from === "crashed") {
    await scene.contract.hooks?.crashDomain?.(scene.world, spec.uuid);
    await scene.powerBecomes(spec, "crashed");
  }
  expect(await scene.power(spec)).toBe(from);
  return spec;
}

function missingParts(scene: Scene, behaviour: Behaviour): void {
  if (!scene.contract.declared.includes("volumes")) return;
  behaviour("start", "a start with a missing volume rejects, and the domain stays off", async () => {
    const volume = scene.volume();
    const spec = await scene.define({ disks: [{ name: "root", kind: "disk", volume, format: "raw" }] });
    await expect(scene.connection.startDomain(spec.uuid, scene.call())).rejects.toMatchObject({
      name: "HypervisorError",
    });
    expect(await scene.power(spec)).toBe("off");
  });
}

function cdroms(scene: Scene, behaviour: Behaviour): void {
  if (!scene.contract.declared.includes("volumes")) return;
  behaviour("start", "a domain starts with a cdrom, and not without the volume behind it", async () => {
    const volume = scene.volume();
    const spec = await scene.define({ disks: [{ name: "cd_rom", kind: "cdrom", volume, format: "raw" }] });
    const start = () => scene.connection.startDomain(spec.uuid, scene.call());
    await expect(start()).rejects.toMatchObject({ name: "HypervisorError" });
    const capacityBytes = 64 * 1024;
    await scene.connection.volumes?.createVolume({ ...volume, format: "raw", capacityBytes }, scene.call());
    await scene.connection.defineDomain(spec, scene.call());
    await start();
    expect(await scene.power(spec)).toBe("running");
  });
}

function gracefulStop(scene: Scene, behaviour: Behaviour): void {
  behaviour("gracefulStop", "a guest that obeys goes off", async () => {
    const spec = await scene.start();
    await scene.guestUp(spec);
    await scene.connection.requestShutdown(spec.uuid, scene.call());
    await scene.powerBecomes(spec, "off");
    await scene.connection.requestShutdown(spec.uuid, scene.call());
    expect(await scene.power(spec)).toBe("off");
  });

  const deafen = scene.contract.hooks?.deafen;
  if (deafen === undefined) return;
  behaviour("gracefulStop", "a guest that ignores the request runs on, until its power is cut", async () => {
    const spec = await scene.define();
    await deafen(scene.world, spec, scene.connection);
    await scene.connection.startDomain(spec.uuid, scene.call());
    await scene.guestUp(spec);
    await scene.connection.requestShutdown(spec.uuid, scene.call());
    expect(await scene.power(spec)).toBe("running");
    await scene.connection.forceOffDomain(spec.uuid, scene.call());
    expect(await scene.power(spec)).toBe("off");
  });
}

function restart(scene: Scene, behaviour: Behaviour, call: PowerCall): void {
  behaviour(call.ability, `${call.name} makes the guest start anew, in the same domain`, async () => {
    const spec = await scene.start();
    await scene.guestUp(spec);
    await call.send(scene.connection, spec.uuid, scene.call());
    await scene.guestUp(spec, 2);
    await scene.powerBecomes(spec, "running");
  });
}

function rebootWithoutDrivers(scene: Scene, behaviour: Behaviour): void {
  behaviour("reboot", "reboot of a guest without drivers for it: refused, nothing changed", async () => {
    const spec = await scene.start();
    await scene.guestUp(spec);
    await expectRefusal(reboot.send(scene.connection, spec.uuid, scene.call()), "invalid-state");
    expect(await scene.power(spec)).toBe("running");
    expect(await scene.bootsOf(spec)).toBe(1);
  });
}

function saving(scene: Scene, behaviour: Behaviour): void {
  behaviour("save", "a guest that was saved goes on from there, without a new boot", async () => {
    const spec = await scene.start();
    await scene.guestUp(spec);
    await save.send(scene.connection, spec.uuid, scene.call());
    const { domains } = await scene.connection.inventory(scene.call());
    expect(domains.find(({ uuid }) => uuid === spec.uuid)).toMatchObject({ power: "saved" });
    await scene.connection.startDomain(spec.uuid, scene.call());
    expect(await scene.power(spec)).toBe("running");
    // It obeys: so it lives, and all that it has written since its first boot is read.
    await scene.connection.requestShutdown(spec.uuid, scene.call());
    await scene.powerBecomes(spec, "off");
    expect(await scene.bootsOf(spec)).toBe(scene.world.bootMarker === null ? 0 : 1);
  });

  behaviour("save", "memory that was thrown away or used up is gone: the next start boots", async () => {
    const spec = await scene.start();
    await scene.guestUp(spec);
    await save.send(scene.connection, spec.uuid, scene.call());
    await scene.connection.startDomain(spec.uuid, scene.call());
    await scene.connection.forceOffDomain(spec.uuid, scene.call());
    expect(await scene.power(spec)).toBe("off");
    await scene.connection.startDomain(spec.uuid, scene.call());
    await scene.guestUp(spec, 2);
    await save.send(scene.connection, spec.uuid, scene.call());
    await scene.connection.forceOffDomain(spec.uuid, scene.call());
    await scene.connection.startDomain(spec.uuid, scene.call());
    await scene.guestUp(spec, 3);
  });

  behaviour("save", "a paused guest that was saved comes back running", async () => {
    const spec = await bringTo(scene, scene.contract.declared.includes("pause") ? "paused" : "running");
    await save.send(scene.connection, spec.uuid, scene.call());
    await scene.connection.startDomain(spec.uuid, scene.call());
    expect(await scene.power(spec)).toBe("running");
  });

  // A mock has no memory that could be of another size than its definition.
  if (!scene.contract.declared.includes("consoleLog")) return;
  behaviour("save", "a definition that is replaced while it is saved keeps what was saved", async () => {
    const spec = await bringTo(scene, "saved");
    await scene.connection.defineDomain({ ...spec, cpuCount: spec.cpuCount + 1 }, scene.call());
    expect(await scene.power(spec)).toBe("saved");
    await scene.connection.startDomain(spec.uuid, scene.call());
    expect(await scene.observe(spec)).toMatchObject({ power: "running", cpuCount: spec.cpuCount });
  });
}

function directKernel(scene: Scene, behaviour: Behaviour): void {
  behaviour("directKernel", "a domain boots the kernel that it is given", async () => {
    const { kernel } = scene.world;
    if (kernel === null) throw new Error("directKernel is declared: the world must have a kernel");
    const spec = await scene.start({ boot: { kind: "kernel", ...kernel } });
    await scene.guestUp(spec);
    expect(await scene.power(spec)).toBe("running");
  });
}

function firmware(scene: Scene, behaviour: Behaviour, ability: Capability, name: Firmware): void {
  behaviour(ability, "a domain starts from its firmware, with a disk", async () => {
    const { volumes } = scene.connection;
    const volume = scene.volume();
    await volumes?.createVolume({ ...volume, format: "qcow2", capacityBytes: 64 << 20 }, scene.call());
    const disks =
      volumes === undefined
        ? []
        : [{ name: "root", kind: "disk" as const, volume, format: "qcow2" as const }];
    const spec = await scene.start({ boot: { kind: "firmware", firmware: name }, disks });
    expect(await scene.power(spec)).toBe("running");
  });
}

function redefinedUefi(scene: Scene, behaviour: Behaviour): void {
  behaviour("firmwareUefi", "UEFI comes up, and again in a domain that was defined anew", async () => {
    const { bootMarker } = scene.world;
    const volume = scene.volume();
    const volumes = present(scene.connection.volumes);
    await volumes.createVolume({ ...volume, format: "qcow2", capacityBytes: 64 << 20 }, scene.call());
    const disks = [{ name: "root", kind: "disk" as const, volume, format: "qcow2" as const }];
    const spec = await scene.define({ boot: { kind: "firmware", firmware: "uefi" }, disks });
    let written = 0;
    for (const cpuCount of [1, 2]) {
      await scene.connection.defineDomain({ ...spec, cpuCount }, scene.call());
      await scene.connection.startDomain(spec.uuid, scene.call());
      expect(await scene.observe(spec)).toMatchObject({ power: "running", cpuCount });
      // An empty disk is nothing to boot, and the firmware says so on the serial console.
      const before = written;
      const speaks = async () => (written = (await scene.readLog(spec)).length) > before;
      if (bootMarker !== null) await scene.eventually("the firmware's words", speaks);
      await scene.connection.forceOffDomain(spec.uuid, scene.call());
    }
  });
}
