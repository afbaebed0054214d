import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Campaign, startCampaign } from "./campaign.ts";
import { matrixOf } from "./cells.ts";
import { groupsOf, partOf } from "./groups.ts";
import { everyKind } from "./kinds.ts";
import { openQemuRig } from "./qemu-rig.ts";
import { inputsOf, scenesOf } from "./scenes.ts";

const HOSTS = 2;
/** As many as the service runs at once on these hosts. */
const AT_ONCE = 8 * HOSTS;
const KINDS: readonly string[] = [
  ...["vm.create", "vm.start", "vm.stop", "vm.save", "vm.restore", "vm.delete"],
  ...["volume.create", "volume.delete", "volume.resize", "vm.attachDisk", "vm.detachDisk"],
];

const matrix = matrixOf(everyKind(), inputsOf);
const all = matrix.cells.filter(({ kind }) => KINDS.includes(kind));
// The whole takes minutes: `npm run crash-matrix`. A part of it has every point and every step, another one each time.
const seed = Number(process.env["CRASH_SEED"] ?? Math.floor(Math.random() * 1e6));
const cells = process.env["CRASH_MATRIX"] === "full" ? all : partOf(all, seed);

let campaign: Campaign;
beforeAll(async () => {
  campaign = await startCampaign(() => openQemuRig(HOSTS));
  await campaign.rehearse(KINDS.flatMap(scenesOf));
}, 400_000);
afterAll(async () => {
  await campaign.stop();
});

describe(`a service that is killed, on real QEMU (CRASH_SEED=${seed}, ${cells.length} of ${all.length})`, () => {
  it("meets every point and every step", () => {
    expect(new Set(cells.map(({ point }) => point))).toEqual(new Set(all.map(({ point }) => point)));
    const stepsOf = (some: typeof all) => new Set(some.map(({ kind, step }) => `${kind} ${step ?? ""}`));
    expect(stepsOf(cells)).toEqual(stepsOf(all));
  });

  it.each(groupsOf(cells, AT_ONCE).map((group, index) => ({ kill: index + 1, met: group.length, group })))(
    "finishes everything after kill $kill, which meets $met operations",
    { timeout: 400_000 },
    async ({ group }) => {
      await campaign.strike(group);
    },
  );
});
