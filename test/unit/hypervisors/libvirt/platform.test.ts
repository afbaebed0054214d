import { describe, expect, it } from "vitest";
import { readPlatform } from "../../../../src/hypervisors/libvirt/platform.ts";
import {
  capabilitiesOf,
  formatVersion,
  probe,
  QEMU_CAPABILITIES,
} from "../../../../src/hypervisors/libvirt/probe.ts";
import { errorCode } from "../../../../src/libvirt-rpc/index.ts";
import { type Answers, call, fakeCalls, refuse } from "./fake-calls.ts";
import { fixture } from "./fixture.ts";

const withKvm = fixture("capabilities-qemu-9.0.0").replaceAll(
  "<domain type='qemu'/>",
  "<domain type='qemu'/><domain type='kvm'/>",
);
const ofKvm = `<domainCapabilities><domain>kvm</domain><cpu><mode name='host-passthrough' supported='yes'/></cpu></domainCapabilities>`;
const noKvm = (): never => refuse(errorCode.invalidArg, "the accel 'kvm' is not supported on this host");

/** A host that offers KVM in its list, and tells by `kvm` whether it works. */
function hostWith(kvm: () => unknown, capabilities = withKvm): Answers {
  return {
    connectGetCapabilities: () => ({ capabilities }),
    nwfilterLookupByName: () => ({ filter: { name: "clean-traffic", uuid: "f" } }),
    connectGetDomainCapabilities: ({ virtType }: { virtType: string }) =>
      virtType === "kvm" ? kvm() : { capabilities: fixture("domain-capabilities-tcg-9.0.0") },
  };
}
const kvmWorks = hostWith(() => ({ capabilities: ofKvm }));
const kvmIsBroken = hostWith(noKvm);
const kvmIsAbsent = hostWith(noKvm, fixture("capabilities-qemu-9.0.0"));

describe("the accelerator", () => {
  it("is KVM where it works and is wanted", async () => {
    for (const accelerator of ["auto", "kvm"] as const) {
      expect(await readPlatform(fakeCalls(kvmWorks), "QEMU", accelerator, call)).toMatchObject({
        domainType: "kvm",
        machine: "q35",
        cpu: { mode: "host-passthrough" },
      });
    }
  });

  it.each([
    ["the host says tcg", kvmWorks, "tcg"],
    ["KVM is offered but does not work", kvmIsBroken, "auto"],
    ["KVM is not offered", kvmIsAbsent, "auto"],
  ] as const)("is emulation where %s", async (_why, answers, accelerator) => {
    expect(await readPlatform(fakeCalls(answers), "QEMU", accelerator, call)).toMatchObject({
      domainType: "qemu",
      cpu: { mode: "custom", model: "Westmere" },
    });
  });

  it.each([kvmIsBroken, kvmIsAbsent])("is refused where KVM is wanted and not there", async (answers) => {
    await expect(readPlatform(fakeCalls(answers), "QEMU", "kvm", call)).rejects.toMatchObject({
      reason: "unsupported",
    });
  });

  it("is not guessed when the host fails to answer", async () => {
    const answers = hostWith(() => refuse(errorCode.internalError, "cannot probe"));
    await expect(readPlatform(fakeCalls(answers), "QEMU", "auto", call)).rejects.toMatchObject({
      reason: "failed",
    });
  });
});

describe("guests", () => {
  it("of another architecture are refused", async () => {
    const arm = fixture("capabilities-qemu-9.0.0").replaceAll("arch name='x86_64'", "arch name='aarch64'");
    await expect(readPlatform(fakeCalls(hostWith(noKvm, arm)), "QEMU", "auto", call)).rejects.toMatchObject({
      reason: "unsupported",
    });
  });

  it("are guarded by filters where the host has some", async () => {
    expect(await readPlatform(fakeCalls(kvmWorks), "QEMU", "auto", call)).toMatchObject({ hasFilters: true });
    for (const code of [errorCode.noNetworkFilter, errorCode.noSupport]) {
      const without = { ...kvmWorks, nwfilterLookupByName: () => refuse(code, "no filter") };
      expect(await readPlatform(fakeCalls(without), "QEMU", "auto", call)).toMatchObject({
        hasFilters: false,
      });
    }
  });

  it("of the mock are the mock's own", async () => {
    const calls = fakeCalls({
      connectGetCapabilities: () => ({ capabilities: fixture("capabilities-test-9.0.0") }),
    });
    expect(await readPlatform(calls, "TEST", "auto", call)).toMatchObject({
      domainType: "test",
      architecture: "i686",
      machine: null,
      cpu: null,
    });
  });

  it("without a usable model get the best that QEMU can emulate", async () => {
    const answers = {
      ...kvmIsAbsent,
      connectGetDomainCapabilities: () => ({
        capabilities: "<domainCapabilities><domain>qemu</domain></domainCapabilities>",
      }),
    };
    expect(await readPlatform(fakeCalls(answers), "QEMU", "auto", call)).toMatchObject({
      cpu: { mode: "maximum" },
    });
  });
});

describe("the probe", () => {
  const machine: Answers = {
    nodeGetInfo: () => ({
      model: "x86_64",
      memory: 2_097_152n,
      cpus: 16,
      mhz: 0,
      nodes: 2,
      sockets: 1,
      cores: 4,
      threads: 2,
    }),
    nodeGetMemoryStats: () => refuse(errorCode.noSupport, "not supported"),
    nodeGetFreeMemory: () => ({ freeMem: 0n }),
    connectGetHostname: () => ({ hostname: "n1" }),
    connectGetVersion: () => ({ hvVer: 7_002_022n }),
    connectGetLibVersion: () => ({ libVer: 9_000_000n }),
  };

  it("tells the machine, and the accelerator that guests get", async () => {
    const calls = fakeCalls({ ...machine, ...kvmIsAbsent });
    const platform = await readPlatform(calls, "QEMU", "auto", call);
    expect(await probe(calls, QEMU_CAPABILITIES, platform, call)).toMatchObject({
      hostUuid: "11ff6064-ac7f-4155-a4ef-f38d15a257fd",
      hostname: "n1",
      hypervisor: "kvm",
      hypervisorVersion: "7.2.22",
      toolstackVersion: "9.0.0",
      architecture: "x86_64",
      cpu: { model: "kvm64", count: 16, sockets: 1, coresPerSocket: 2, threadsPerCore: 1 },
      memoryMib: 2048,
      accelerator: "tcg",
    });
  });

  it("counts the sockets of all nodes where the CPUs do not tell their places", async () => {
    const calls = fakeCalls({ ...machine, ...kvmIsAbsent });
    const platform = await readPlatform(calls, "QEMU", "auto", call);
    const silent = { ...platform, capabilities: { ...platform.capabilities, topology: null } };
    expect((await probe(calls, QEMU_CAPABILITIES, silent, call)).cpu).toMatchObject({
      sockets: 2,
      coresPerSocket: 4,
      threadsPerCore: 2,
    });
  });

  it("offers screens only where we are on the host itself", () => {
    expect(capabilitiesOf("QEMU", true)).toEqual(QEMU_CAPABILITIES);
    expect(capabilitiesOf("QEMU", false)).toEqual(QEMU_CAPABILITIES.filter((ability) => ability !== "vnc"));
    expect(capabilitiesOf("TEST", true)).not.toContain("serialConsole");
  });

  it("formats versions", () => {
    expect(formatVersion(10_010_003n)).toBe("10.10.3");
  });
});
