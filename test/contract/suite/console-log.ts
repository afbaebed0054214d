import { expect } from "vitest";
import type { Behaviour } from "./record.ts";
import { present, type Scene } from "./scene.ts";

/** The serial console's log. */
export function consoleLogBehaviours(scene: Scene, behaviour: Behaviour): void {
  const log = () => present(scene.connection.consoleLog);

  behaviour("consoleLog", "the log of a guest that never ran is empty", async () => {
    const spec = await scene.define();
    expect(await scene.readLog(spec)).toBe("");
  });

  behaviour("consoleLog", "the log tells what the guest writes, and outlives a stop", async () => {
    const spec = await scene.start();
    await scene.guestUp(spec);
    await scene.eventually("some text", async () => (await scene.readLog(spec)).length > 0);
    await scene.connection.forceOffDomain(spec.uuid, scene.call());
    expect((await scene.readLog(spec)).length).toBeGreaterThan(0);
  });

  behaviour("consoleLog", "only the last bytes are read", async () => {
    const spec = await scene.start();
    await scene.guestUp(spec);
    await scene.eventually("some text", async () => (await scene.readLog(spec)).length > 100);
    await scene.connection.forceOffDomain(spec.uuid, scene.call());
    const whole = Buffer.from(await log().readConsoleLog(scene.refOf(spec), 1 << 20, scene.call()));
    const tail = Buffer.from(await log().readConsoleLog(scene.refOf(spec), 64, scene.call()));
    expect(tail).toEqual(whole.subarray(whole.length - 64));
  });

  behaviour("consoleLog", "a deleted log is empty, and deleting it again is fine", async () => {
    const spec = await scene.start();
    await scene.guestUp(spec);
    await scene.connection.forceOffDomain(spec.uuid, scene.call());
    await scene.connection.removeDomain(spec.uuid, scene.call());
    await log().deleteConsoleLog(scene.refOf(spec), scene.call());
    expect(await scene.readLog(spec)).toBe("");
    await log().deleteConsoleLog(scene.refOf(spec), scene.call());
  });
}
