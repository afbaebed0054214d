import { describe, expect, it } from "vitest";
import { HypervisorError } from "../../../../src/hypervisors/hypervisor.ts";
import { SimLife, withinLimits } from "../../../../src/hypervisors/sim/sim-life.ts";

const never = (): Promise<never> => new Promise(() => undefined);
const lost = new HypervisorError("unreachable", "lost");

function limits(overrides: Partial<Parameters<typeof withinLimits>[0]> = {}) {
  return { life: new SimLife(), signal: new AbortController().signal, timeoutMs: null, ...overrides };
}

describe("waiting within limits", () => {
  it("gives what the work gives", async () => {
    expect(await withinLimits(limits(), async () => 7)).toBe(7);
    const error = new Error("of the work");
    await expect(withinLimits(limits(), () => Promise.reject(error))).rejects.toBe(error);
  });

  it("ends with the deadline, the signal or the connection, and tells the work so", async () => {
    const life = new SimLife();
    const stop = new AbortController();
    let overs: (() => boolean)[] = [];
    const wait = (overrides: Partial<Parameters<typeof withinLimits>[0]>) =>
      withinLimits(limits(overrides), (isOver) => {
        overs = [...overs, isOver];
        return never();
      });
    const ends = [wait({ timeoutMs: 1 }), wait({ signal: stop.signal }), wait({ life })];
    expect(overs.map((isOver) => isOver())).toEqual([false, false, false]);
    stop.abort(new Error("why"));
    life.end(lost);
    const reasons = await Promise.all(ends.map((end) => end.catch((error: unknown) => error)));
    expect(reasons).toMatchObject([
      { reason: "timeout" },
      { reason: "aborted", cause: new Error("why") },
      lost,
    ]);
    expect(overs.map((isOver) => isOver())).toEqual([true, true, true]);
  });

  it("does not begin the work when it is over already", async () => {
    const life = new SimLife();
    life.end(lost);
    const work = (): never => {
      throw new Error("the work began");
    };
    await expect(withinLimits(limits({ life }), work)).rejects.toBe(lost);
    await expect(withinLimits(limits({ signal: AbortSignal.abort() }), work)).rejects.toMatchObject({
      reason: "aborted",
    });
  });
});

describe("the life of a connection", () => {
  it("ends once, for the first reason", () => {
    const life = new SimLife();
    const told: HypervisorError[] = [];
    life.onEnd((error) => told.push(error));
    const stop = life.onEnd(() => {
      throw new Error("told, though it no longer listens");
    });
    stop();
    life.end(lost);
    life.end(new HypervisorError("unreachable", "again"));
    expect(told).toEqual([lost]);
    expect(life.over).toBe(lost);
  });
});
