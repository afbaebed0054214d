import { describe, expect, it } from "vitest";
import { type HostEquipment, offeredGuestTypes } from "../../../../src/hypervisors/xl/guest-types.ts";
import { PVGRUB_PATHS } from "../../../../src/hypervisors/xl/pvgrub.ts";

const DEVICE_MODEL = ["/usr/lib/xen-4.17/boot/hvmloader", "/usr/bin/qemu-system-i386"];

function host(change: Partial<HostEquipment> & { readonly virtualization?: readonly string[] } = {}) {
  const { virtualization = ["pv", "hvm"], ...equipment } = change;
  return offeredGuestTypes({
    info: { virtualization: new Set(virtualization), guestInterfaces: new Set() },
    files: [...DEVICE_MODEL, ...Object.values(PVGRUB_PATHS)],
    logsConsoles: true,
    ...equipment,
  });
}

/** The guest types that have it. */
function having(ability: string, offered: ReturnType<typeof offeredGuestTypes>): readonly string[] {
  return offered
    .filter(({ capabilities }) => capabilities.some((capability) => capability === ability))
    .map(({ guestType }) => guestType);
}

describe("the guest types of a host", () => {
  it("are all where it has everything, the safest that is fast first", () => {
    expect(host().map(({ guestType }) => guestType)).toEqual(["pvh", "pv", "hvm"]);
    expect(having("firmwareBios", host())).toEqual(["hvm"]);
    expect(having("firmwarePvgrub", host())).toEqual(["pvh", "pv"]);
    expect(having("consoleLog", host())).toEqual(["pvh", "pv", "hvm"]);
  });

  it("are without hvm where there is no device model, and pv alone without hardware for others", () => {
    expect(host({ files: [] }).map(({ guestType }) => guestType)).toEqual(["pvh", "pv"]);
    expect(host({ files: DEVICE_MODEL.slice(0, 1) }).map(({ guestType }) => guestType)).toEqual([
      "pvh",
      "pv",
    ]);
    expect(host({ virtualization: ["pv"] }).map(({ guestType }) => guestType)).toEqual(["pv"]);
  });

  it.each([
    ["pv", ["pv"]],
    ["pvh", ["pvh"]],
  ] as const)("boot their disks by pvgrub where that of %s is there", (guestType, expected) => {
    expect(having("firmwarePvgrub", host({ files: [PVGRUB_PATHS[guestType]] }))).toEqual(expected);
  });

  it("do not boot their disks by pvgrub where it is somewhere else, or not there", () => {
    const elsewhere = Object.values(PVGRUB_PATHS).map((path) => `${path}.old`);
    expect(having("firmwarePvgrub", host({ files: elsewhere }))).toEqual([]);
  });

  it("have no console log where consoles are not logged", () => {
    expect(having("consoleLog", host({ logsConsoles: false }))).toEqual([]);
  });
});
