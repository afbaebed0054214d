import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CRASH_POINTS } from "../../src/operations/crash-points.ts";
import { type Campaign, startCampaign } from "./campaign.ts";
import { FAULTS, type Matrix, matrixOf } from "./cells.ts";
import { groupsOf } from "./groups.ts";
import { everyKind } from "./kinds.ts";
import { inputsOf, scenesOf } from "./scenes.ts";
import { openSimRig } from "./sim-rig.ts";

const AT_ONCE = 36;
const kinds = everyKind();
const matrix: Matrix = matrixOf(kinds, inputsOf);
const groups = groupsOf(matrix.cells, AT_ONCE);

let campaign: Campaign;
beforeAll(async () => {
  campaign = await startCampaign((database) => openSimRig(database, AT_ONCE));
  await campaign.rehearse(kinds.names.flatMap(scenesOf));
}, 400_000);
afterAll(async () => {
  await campaign.stop();
});

describe("a service that is killed, on simulated hosts", () => {
  it("has a place or a reason for every kind, step, point and fault", () => {
    const steps = kinds.names.flatMap((name) => kinds.get(name).steps);
    const ids = [...matrix.cells, ...matrix.absent].map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids.length).toBeGreaterThan(FAULTS.length * steps.length * 12);
    expect(matrix.absent.filter(({ reason }) => reason === "")).toEqual([]);
    const met = new Set(matrix.cells.map(({ point }) => point));
    expect(CRASH_POINTS.filter((point) => !met.has(point))).toEqual([]);
    for (const name of kinds.names) {
      for (const step of kinds.get(name).steps) {
        expect(matrix.cells.some((cell) => cell.kind === name && cell.step === step.name)).toBe(true);
      }
    }
  });

  it.each(groups.map((cells, index) => ({ kill: index + 1, met: cells.length, cells })))(
    "finishes everything after kill $kill, which meets $met operations",
    { timeout: 400_000 },
    async ({ cells }) => {
      await campaign.strike(cells);
    },
  );
});
