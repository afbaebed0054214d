import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  canonicalSimUri,
  parseSimUri,
  SIM_PARAMETERS,
  type SimSettings,
} from "../../../../src/hypervisors/sim/sim-uri.ts";

function settingsOf(uri: string): SimSettings {
  const settings = parseSimUri(uri);
  if ("error" in settings) throw new Error(settings.error);
  return settings;
}

function errorOf(uri: string): string {
  const settings = parseSimUri(uri);
  if (!("error" in settings)) throw new Error(`${uri} was taken`);
  return settings.error;
}

describe("the URI of a simulated host", () => {
  it("fills in what it does not say", () => {
    expect(settingsOf("sim+kvm://n1")).toEqual({
      hypervisor: "kvm",
      name: "n1",
      cpus: 16,
      memoryGib: 64,
      numa: 1,
      poolGib: 1024,
      latencyMs: 0,
      guestStopMs: 0,
      rebootGapMs: 0,
      guestAgents: 0,
      failRate: 0,
      hangRate: 0,
      loseAnswerRate: 0,
      seed: null,
    });
  });

  it("takes every parameter", () => {
    const uri =
      "sim+xen://rack-1.n2/?cpus=64&memoryGib=256&numa=2&poolGib=10&latencyMs=40&guestStopMs=5&rebootGapMs=6&guestAgents=1&failRate=0.01" +
      "&hangRate=0.002&loseAnswerRate=0&seed=7";
    expect(settingsOf(uri)).toEqual({
      hypervisor: "xen",
      name: "rack-1.n2",
      cpus: 64,
      memoryGib: 256,
      numa: 2,
      poolGib: 10,
      latencyMs: 40,
      guestStopMs: 5,
      rebootGapMs: 6,
      guestAgents: 1,
      failRate: 0.01,
      hangRate: 0.002,
      loseAnswerRate: 0,
      seed: 7,
    });
  });

  it.each([
    ["another scheme", "qemu:///system", "sim+kvm://NAME"],
    ["a hypervisor that is not there", "sim+vmware://n1", "sim+kvm://NAME"],
    ["a path", "sim+kvm://n1/system", "sim+kvm://NAME"],
    ["a fragment", "sim+kvm://n1#x", "sim+kvm://NAME"],
    ["no name", "sim+kvm://", "name of a simulated host"],
    ["capitals in the name", "sim+kvm://N1", "name of a simulated host"],
    ["a name with a dash at its end", "sim+kvm://n1-", "name of a simulated host"],
    ["a name that is too long", `sim+kvm://${"n".repeat(64)}`, "name of a simulated host"],
    ["a user", "sim+kvm://root@n1", "name of a simulated host"],
    ["a port", "sim+kvm://n1:22", "name of a simulated host"],
    ["a line break in the name", "sim+kvm://n1\n", "name of a simulated host"],
    ["an unknown parameter", "sim+kvm://n1?cpu=4", 'no parameter "cpu"'],
    ["a parameter of every object", "sim+kvm://n1?constructor=4", 'no parameter "constructor"'],
    ["an empty parameter", "sim+kvm://n1?cpus=4&", 'no parameter ""'],
    ["a parameter twice", "sim+kvm://n1?cpus=4&cpus=8", "given twice"],
    ["no value", "sim+kvm://n1?cpus", "cpus must be a whole number from 1 to 4096"],
    ["a value out of bounds", "sim+kvm://n1?cpus=4097", "cpus must be"],
    ["a value below bounds", "sim+kvm://n1?cpus=0", "cpus must be"],
    ["a negative value", "sim+kvm://n1?latencyMs=-1", "latencyMs must be"],
    ["a fraction of a number", "sim+kvm://n1?latencyMs=1.5", "latencyMs must be"],
    ["an exponent", "sim+kvm://n1?memoryGib=1e3", "memoryGib must be"],
    ["leading zeros", "sim+kvm://n1?seed=007", "seed must be"],
    ["a seed of more than 32 bits", "sim+kvm://n1?seed=4294967296", "seed must be"],
    ["a share above one", "sim+kvm://n1?failRate=1.01", "failRate must be a share from 0 to 1"],
    ["an encoded value", "sim+kvm://n1?cpus=%31", "cpus must be"],
    ["CPUs that the cells cannot share", "sim+kvm://n1?cpus=9&numa=2", "multiple of numa"],
    ["rates above one together", "sim+kvm://n1?failRate=0.6&hangRate=0.5", "together"],
  ])("refuses %s", (_what, uri, message) => {
    expect(errorOf(uri)).toContain(message);
  });

  it("names every parameter where it refuses one", () => {
    for (const parameter of SIM_PARAMETERS) expect(errorOf("sim+kvm://n1?x=1")).toContain(parameter);
  });

  it("has one canonical form, which says the same", () => {
    expect(canonicalSimUri(settingsOf("sim+kvm://n1/?seed=0&latencyMs=0&numa=2&cpus=16"))).toBe(
      "sim+kvm://n1?numa=2&seed=0",
    );
    expect(canonicalSimUri(settingsOf("sim+xen://n1?rebootGapMs=2000"))).toBe("sim+xen://n1");
    expect(canonicalSimUri(settingsOf("sim+xen://n1?rebootGapMs=0"))).toBe("sim+xen://n1?rebootGapMs=0");
    const share = fc.integer({ min: 0, max: 333 }).map((thousandths) => thousandths / 1000);
    const settings = fc.record({
      hypervisor: fc.constantFrom("kvm", "xen"),
      name: fc.stringMatching(/^[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?$/),
      cpus: fc.integer({ min: 1, max: 64 }).map((cpus) => cpus * 64),
      memoryGib: fc.integer({ min: 1, max: 65_536 }),
      numa: fc.constantFrom(1, 2, 4, 64),
      poolGib: fc.integer({ min: 1, max: 1_048_576 }),
      latencyMs: fc.integer({ min: 0, max: 3_600_000 }),
      guestStopMs: fc.integer({ min: 0, max: 3_600_000 }),
      rebootGapMs: fc.constantFrom(0, 7, 2000),
      guestAgents: fc.constantFrom(0, 1),
      failRate: share,
      hangRate: share,
      loseAnswerRate: share,
      seed: fc.option(fc.integer({ min: 0, max: 0xffff_ffff })),
    });
    fc.assert(
      fc.property(settings, (wanted) => {
        expect(settingsOf(canonicalSimUri(wanted as SimSettings))).toEqual(wanted);
      }),
    );
  });

  it("never throws, whatever it is given", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.string().map((rest) => `sim+kvm://n1?${rest}`),
        ),
        (uri) => {
          expect(typeof parseSimUri(uri)).toBe("object");
        },
      ),
    );
  });
});
