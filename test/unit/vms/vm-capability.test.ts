import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { DeclaredGuestType } from "../../../src/hypervisors/capabilities.ts";
import { CAPABILITIES, GUEST_TYPES, HYPERVISORS } from "../../../src/hypervisors/hypervisor.ts";
import { DroverError } from "../../../src/lib/errors.ts";
import { requireDeclared, type Wish } from "../../../src/vms/vm-capability.ts";

const row = (
  hypervisor: DeclaredGuestType["hypervisor"],
  guestType: DeclaredGuestType["guestType"],
  capabilities: DeclaredGuestType["capabilities"],
): DeclaredGuestType => ({ driver: "sim", schemes: [], hypervisor, guestType, capabilities });

const DECLARED = [
  row("kvm", "hvm", ["start", "firmwareBios", "directKernel", "volumes"]),
  row("xen", "pv", ["start", "directKernel", "volumes"]),
  row("xen", "pvh", ["start", "directKernel"]),
];

function refusal(wish: Partial<Wish>, declared = DECLARED): DroverError | null {
  try {
    requireDeclared(declared, { hypervisor: null, guestType: null, capabilities: ["start"], ...wish });
    return null;
  } catch (error) {
    if (error instanceof DroverError) return error;
    throw error;
  }
}

describe("a wish", () => {
  it("is taken when one driver declares all of it for a guest that is asked for, or any", () => {
    expect(refusal({ capabilities: ["start", "firmwareBios"] })).toBeNull();
    expect(refusal({ guestType: "pv", capabilities: ["start", "directKernel"] })).toBeNull();
    expect(refusal({ hypervisor: "xen", capabilities: ["directKernel", "volumes"] })).toBeNull();
  });

  it.each([
    [
      "a guest type that the hypervisor does not have",
      { hypervisor: "kvm", guestType: "pv" },
      "No driver runs guests of type pv on kvm. These have it: kvm hvm, xen pv, xen pvh.",
    ],
    [
      "a firmware where there is none",
      { guestType: "pv", capabilities: ["start", "firmwareBios"] },
      "No driver offers firmwareBios for guests of type pv. These have it: kvm hvm.",
    ],
    [
      "what no single guest type has together",
      { hypervisor: "xen", guestType: "pvh", capabilities: ["directKernel", "volumes"] },
      "No driver offers volumes for guests of type pvh on xen. These have it: kvm hvm, xen pv.",
    ],
    [
      "what nobody has",
      { capabilities: ["save"] },
      "No driver offers save for guests. No other guest type has it",
    ],
  ] as const)("for %s is refused, and told who has it", (_what, wish, message) => {
    const error = refusal(wish);
    expect(error?.code).toBe("capability_unsupported");
    expect(error?.message).toContain(message);
  });

  it("is refused exactly when no row fits it, and never names one that does not have it", () => {
    const capabilities = fc.uniqueArray(fc.constantFrom(...CAPABILITIES));
    const rows = fc.array(
      fc
        .tuple(fc.constantFrom(...HYPERVISORS), fc.constantFrom(...GUEST_TYPES), capabilities)
        .map((parts) => row(...parts)),
    );
    const wishes = fc.record({
      hypervisor: fc.option(fc.constantFrom(...HYPERVISORS)),
      guestType: fc.option(fc.constantFrom(...GUEST_TYPES)),
      capabilities,
    });
    fc.assert(
      fc.property(rows, wishes, (declared, wish) => {
        const has = (one: DeclaredGuestType) =>
          wish.capabilities.every((capability) => one.capabilities.includes(capability));
        const fits = declared.some(
          (one) =>
            has(one) &&
            (wish.hypervisor ?? one.hypervisor) === one.hypervisor &&
            (wish.guestType ?? one.guestType) === one.guestType,
        );
        const error = refusal(wish, declared);
        expect(error === null).toBe(fits);
        const able = declared.filter(has).map((one) => `${one.hypervisor} ${one.guestType}`);
        if (error !== null) expect(error.details?.["offeredBy"]).toEqual([...new Set(able)]);
      }),
    );
  });
});
