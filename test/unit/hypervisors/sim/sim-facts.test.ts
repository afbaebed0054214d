import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CAPABILITIES } from "../../../../src/hypervisors/hypervisor.ts";
import {
  declaredCapabilities,
  guestTypesOf,
  simHostFacts,
  simUuid,
} from "../../../../src/hypervisors/sim/sim-facts.ts";
import { parseSimUri } from "../../../../src/hypervisors/sim/sim-uri.ts";
import { isUuid } from "../../../../src/lib/ids.ts";

function factsOf(uri: string, accelerator: "auto" | "kvm" | "tcg" = "auto") {
  const settings = parseSimUri(uri);
  if ("error" in settings) throw new Error(settings.error);
  return simHostFacts(settings, accelerator);
}

describe("the facts of a simulated host", () => {
  it("add up, whatever its size", () => {
    const size = fc.record({
      numa: fc.constantFrom(1, 2, 3, 4, 7),
      perCell: fc.integer({ min: 1, max: 64 }),
      memoryGib: fc.integer({ min: 1, max: 4096 }),
    });
    fc.assert(
      fc.property(size, ({ numa, perCell, memoryGib }) => {
        const cpus = numa * perCell;
        const facts = factsOf(`sim+kvm://n1?cpus=${cpus}&numa=${numa}&memoryGib=${memoryGib}`);
        const { cpu, numaCells } = facts;
        expect(cpu.sockets * cpu.coresPerSocket * cpu.threadsPerCore).toBe(cpus);
        expect(numaCells.flatMap((cell) => cell.cpus)).toEqual(Array.from({ length: cpus }, (_, id) => id));
        expect(numaCells.reduce((sum, cell) => sum + cell.memoryMib, 0)).toBe(memoryGib * 1024);
        expect(facts.memoryMib).toBe(memoryGib * 1024);
      }),
    );
  });

  it("tell one machine by hypervisor and name, whatever the other parameters", () => {
    expect(factsOf("sim+kvm://n1?cpus=4").hostUuid).toBe(factsOf("sim+kvm://n1?seed=9").hostUuid);
    const others = ["sim+kvm://n1", "sim+kvm://n2", "sim+xen://n1"].map((uri) => factsOf(uri).hostUuid);
    expect(new Set(others).size).toBe(3);
    for (const uuid of others) expect(isUuid(uuid ?? "")).toBe(true);
  });

  it("follow the host's setting for acceleration on KVM only", () => {
    expect(factsOf("sim+kvm://n1").accelerator).toBe("kvm");
    expect(factsOf("sim+kvm://n1", "tcg").accelerator).toBe("tcg");
    expect(factsOf("sim+xen://n1").accelerator).toBeNull();
  });

  it("offer guest types and abilities of their hypervisor", () => {
    expect(guestTypesOf("kvm")).toEqual(["hvm"]);
    expect(guestTypesOf("xen")).toEqual(["pv", "pvh", "hvm"]);
    // A simulated guest has no screen, and no memory that could be kept; GRUB in the guest is for Xen's.
    const real: readonly string[] = ["vnc", "screenshot", "firmwarePvgrub", "volumeDownload"];
    const simulated = CAPABILITIES.filter((ability) => !real.includes(ability));
    expect([...declaredCapabilities("kvm", "hvm")].sort()).toEqual(simulated.sort());
    expect(declaredCapabilities("kvm", "pv").size).toBe(0);
    expect(declaredCapabilities("xen", "pv").has("reset")).toBe(false);
    expect(declaredCapabilities("xen", "hvm").has("diskHotplug")).toBe(false);
    expect(declaredCapabilities("xen", "hvm").has("events")).toBe(false);
  });
});

describe("a UUID made of a text", () => {
  it("is a UUID, and another for another text", () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (one, other) => {
        expect(isUuid(simUuid(one))).toBe(true);
        expect(simUuid(one) === simUuid(other)).toBe(one === other);
      }),
    );
  });
});
