import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Campaign, startCampaign } from "./campaign.ts";
import { type Cell, matrixOf } from "./cells.ts";
import { groupsOf, partOf } from "./groups.ts";
import { everyKind } from "./kinds.ts";
import { inputsOf, scenesOf } from "./scenes.ts";
import { openXenRig } from "./xen-rig.ts";

/** As many as the service runs at once on a host. */
const AT_ONCE = 8;
const KINDS: readonly string[] = ["vm.create", "vm.delete"];

// Its guests are on bridges that the host has.
const all = matrixOf(everyKind(), inputsOf).cells.filter(
  ({ kind, step }) => KINDS.includes(kind) && step !== "prepare-networks",
);
const isWhole = process.env["CRASH_MATRIX"] === "full";
const seed = Number(process.env["CRASH_SEED"] ?? Math.floor(Math.random() * 1e6));
// In an emulated machine a kill takes a minute: all of them by `npm run crash-matrix`, else one, another each time.
const groups = groupsOf(isWhole ? all : partOf(all, seed), AT_ONCE);
const played = isWhole ? groups : [largestOf(groups)];

function largestOf(some: readonly Cell[][]): Cell[] {
  return some.toSorted((a, b) => b.length - a.length)[0] ?? [];
}

let campaign: Campaign;
beforeAll(async () => {
  // An inventory of an emulated host takes seconds itself.
  campaign = await startCampaign(openXenRig, { inventorySeconds: 60 });
  await campaign.rehearse([...new Set(played.flat().map(({ scene }) => scene))]);
}, 900_000);
afterAll(async () => {
  await campaign.stop();
});

describe(`a service that is killed, on real Xen (CRASH_SEED=${seed}, ${played.flat().length} of ${all.length})`, () => {
  it("has a kill for every step of its kinds", () => {
    expect(new Set(all.map(({ scene }) => scene))).toEqual(new Set(KINDS.flatMap(scenesOf)));
    expect(played.flat().length).toBeGreaterThan(0);
  });

  it.each(played.map((group, index) => ({ kill: index + 1, met: group.length, group })))(
    "finishes everything after kill $kill, which meets $met operations",
    { timeout: 900_000 },
    async ({ group }) => {
      await campaign.strike(group);
    },
  );
});
