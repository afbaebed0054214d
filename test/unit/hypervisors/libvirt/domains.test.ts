import { describe, expect, it } from "vitest";
import type { DomainSpec } from "../../../../src/hypervisors/hypervisor.ts";
import { DomainFactCache } from "../../../../src/hypervisors/libvirt/domain-fact-cache.ts";
import * as domains from "../../../../src/hypervisors/libvirt/domains.ts";
import type { HostContext, LibvirtDriverType } from "../../../../src/hypervisors/libvirt/host-context.ts";
import { save } from "../../../../src/hypervisors/libvirt/managed-save.ts";
import { systemClock } from "../../../../src/lib/clock.ts";
import { asId, type InstallationId, type VmId } from "../../../../src/lib/ids.ts";
import { errorCode } from "../../../../src/libvirt-rpc/index.ts";
import { type Answers, call, fakeCalls, refuse } from "./fake-calls.ts";
import { fixture } from "./fixture.ts";

const uuid = "0192aaaa-0000-7000-8000-00000000abcd";
const domain = { name: "web-1-00000000abcd", uuid, id: -1 };
const RUNNING = { state: 1, reason: 1 };
const PAUSED = { state: 3, reason: 1 };
const OFF = { state: 5, reason: 1 };
const notValid = (): never => refuse(errorCode.operationInvalid, "Requested operation is not valid");

/** A host with one domain of ours, whose state is `states` one after the other, the last for ever. */
function hostWith(
  states: readonly { state: number; reason: number }[],
  changed: Answers,
  type: LibvirtDriverType = "QEMU",
) {
  const left = [...states];
  const calls = fakeCalls({
    domainLookupByUuid: () => ({ domain }),
    domainGetXmlDesc: () => ({ xml: fixture("domain-ours-9.0.0") }),
    domainHasManagedSaveImage: () => ({ result: 0 }),
    domainGetState: () => (left.length > 1 ? left.shift() : left[0]),
    ...changed,
  });
  const host: HostContext = {
    calls,
    cache: new DomainFactCache(systemClock),
    target: {
      uri: "qemu:///system",
      credentials: {},
      accelerator: "auto",
      installationId: asId<InstallationId>("0192aaaa-0000-7000-8000-000000000001"),
    },
    driverType: type,
    platform: () => Promise.reject(new Error("not asked for here")),
  };
  return { host, calls };
}

describe("a change that loses a race", () => {
  it.each([
    ["start", domains.start, "domainCreateWithFlags", OFF, RUNNING],
    ["force-off", domains.forceOff, "domainDestroyFlags", RUNNING, OFF],
    ["shutdown request", domains.requestShutdown, "domainShutdownFlags", RUNNING, OFF],
    ["pause", domains.pause, "domainSuspend", RUNNING, PAUSED],
    ["resume", domains.resume, "domainResume", PAUSED, RUNNING],
  ] as const)(
    "%s succeeds when its goal was reached meanwhile, and fails when it was not",
    async (...row) => {
      const [, change, procedure, before, goal] = row;
      const reached = hostWith([before, goal], { [procedure]: notValid });
      await change(reached.host, uuid, call);
      expect(reached.calls.asked).toContain(procedure);
      const missed = hostWith([before], { [procedure]: notValid });
      await expect(change(missed.host, uuid, call)).rejects.toMatchObject({ reason: "invalid-state" });
    },
  );

  it("remove succeeds when the domain went away meanwhile", async () => {
    const { host } = hostWith([OFF], {
      connectGetLibVersion: () => ({ libVer: 9_000_000n }),
      domainUndefineFlags: () => refuse(errorCode.noDomain, "Domain not found"),
    });
    await domains.remove(host, uuid, call);
  });
});

describe("removing", () => {
  it.each([
    [5_000_000n, "QEMU", 1 | 2 | 4],
    [5_006_000n, "QEMU", 1 | 2 | 4 | 16],
    [8_009_000n, "QEMU", 1 | 2 | 4 | 16 | 32],
    [9_000_000n, "TEST", 1 | 2],
  ] as const)(
    "from libvirt %i of %s takes away all that it can: flags %i",
    async (libVer, type, expected) => {
      let flags = 0;
      const answers: Answers = {
        connectGetLibVersion: () => ({ libVer }),
        domainUndefineFlags: (args: { flags: number }) => {
          flags = args.flags;
        },
      };
      await domains.remove(hostWith([OFF], answers, type).host, uuid, call);
      expect(flags).toBe(expected);
    },
  );
});

describe("a start", () => {
  it("that misses a disk blames the definition, not the domain", async () => {
    const message = "Cannot access storage file '/a': No such file or directory";
    const { host } = hostWith([OFF], { domainCreateWithFlags: () => refuse(errorCode.systemError, message) });
    await expect(domains.start(host, uuid, call)).rejects.toMatchObject({
      reason: "invalid-spec",
      message: `the domain does not start: ${message}`,
    });
  });

  it("that finds no memory says so", async () => {
    const message = "cannot set up guest memory 'pc.ram': Cannot allocate memory";
    const { host } = hostWith([OFF], {
      domainCreateWithFlags: () => refuse(errorCode.internalError, message),
    });
    await expect(domains.start(host, uuid, call)).rejects.toMatchObject({ reason: "no-capacity", message });
  });
});

/** What libvirt 9 says when another job of the guest is under way for half a minute. */
const heldBySave = (): never =>
  refuse(
    errorCode.operationTimeout,
    "Timed out during operation: cannot acquire state change lock (held by remoteDispatchDomainManagedSave)",
  );
const BEING_SAVED = { state: 3, reason: 3 };
const job = (type: number) => () => ({ type });

describe("a save", () => {
  it("waits for an earlier one that is under way, and takes its end for its own", async () => {
    let images = 0;
    const { host, calls } = hostWith([RUNNING, BEING_SAVED, OFF], {
      domainManagedSave: heldBySave,
      domainGetJobInfo: job(2),
      domainHasManagedSaveImage: () => ({ result: images++ > 0 ? 1 : 0 }),
    });
    await save(host, uuid, call);
    expect(calls.asked.filter((name) => name === "domainManagedSave")).toHaveLength(2);
  });

  it("of a guest that something else holds says so", async () => {
    const { host, calls } = hostWith([RUNNING], { domainManagedSave: heldBySave });
    await expect(save(host, uuid, call)).rejects.toMatchObject({ reason: "busy", retryable: true });
    expect(calls.asked.filter((name) => name === "domainManagedSave")).toHaveLength(1);
  });

  it.each([
    ["off", OFF],
    ["crashed", { state: 5, reason: 3 }],
    ["stopped by a crash within", { state: 3, reason: 10 }],
  ] as const)("of a domain that is %s is refused before anything is sent", async (_what, state) => {
    const { host, calls } = hostWith([state], {});
    await expect(save(host, uuid, call)).rejects.toMatchObject({ reason: "invalid-state" });
    expect(calls.asked).not.toContain("domainManagedSave");
  });
});

describe("a start of a domain that is being saved", () => {
  it.each([
    ["gives the save up", () => undefined],
    ["takes one that ended by itself for given up", notValid],
  ])("%s, and is to be asked again", async (_what, domainAbortJob) => {
    const { host, calls } = hostWith([BEING_SAVED], { domainGetJobInfo: job(2), domainAbortJob });
    await expect(domains.start(host, uuid, call)).rejects.toMatchObject({ reason: "busy", retryable: true });
    expect(calls.asked).toContain("domainAbortJob");
  });

  it("leaves one alone that is only paused", async () => {
    const { host, calls } = hostWith([PAUSED], { domainGetJobInfo: job(0) });
    await domains.start(host, uuid, call);
    expect(calls.asked).not.toContain("domainAbortJob");
  });
});

describe("a force-off", () => {
  it("throws memory away that was saved before, or while it was cut", async () => {
    const removed = { domainManagedSaveRemove: () => undefined };
    const saved = hostWith([OFF], { ...removed, domainHasManagedSaveImage: () => ({ result: 1 }) });
    await domains.forceOff(saved.host, uuid, call);
    expect(saved.calls.asked).toContain("domainManagedSaveRemove");
    let looks = 0;
    const raced = hostWith([BEING_SAVED, OFF], {
      ...removed,
      domainDestroyFlags: notValid,
      domainHasManagedSaveImage: () => ({ result: looks++ }),
    });
    await domains.forceOff(raced.host, uuid, call);
    expect(raced.calls.asked).toContain("domainManagedSaveRemove");
  });
});

describe("a domain of another", () => {
  it.each([
    ["no mark", "domain-test-9.0.0"],
    ["our mark for another installation", "domain-ours-9.0.0"],
  ])("with %s is refused before anything is sent", async (_what, name) => {
    const { host, calls } = hostWith([RUNNING], { domainGetXmlDesc: () => ({ xml: fixture(name) }) });
    const installationId = asId<InstallationId>("0192bbbb-0000-7000-8000-000000000009");
    const stranger = { ...host, target: { ...host.target, installationId } };
    await expect(domains.forceOff(stranger, uuid, call)).rejects.toMatchObject({ reason: "foreign" });
    expect(calls.asked).not.toContain("domainDestroyFlags");
  });
});

describe("another domain", () => {
  it("of the same name is not replaced", async () => {
    const { host, calls } = hostWith([OFF], {
      domainLookupByUuid: () => refuse(errorCode.noDomain, "Domain not found"),
      domainLookupByName: () => ({ domain: { ...domain, uuid: "0192cccc-0000-7000-8000-000000000001" } }),
      storagePoolLookupByName: () => ({ pool: { name: "default", uuid } }),
      storagePoolGetXmlDesc: () => ({ xml: fixture("pool-dir-9.0.0") }),
      domainDefineXmlFlags: () => ({ domain }),
    });
    const spec: DomainSpec = {
      ...{ uuid: asId<VmId>(uuid), name: domain.name, installationId: host.target.installationId },
      ...{ guestType: "hvm", cpuCount: 1, memoryMib: 256, boot: { kind: "firmware", firmware: "bios" } },
      ...{ disks: [], nics: [], consolePool: "default" },
    };
    const platform = async () =>
      ({ domainType: "qemu", architecture: "x86_64", machine: "q35", cpu: null, hasFilters: false }) as const;
    await expect(domains.define({ ...host, platform }, spec, call)).rejects.toMatchObject({
      reason: "already-exists",
    });
    expect(calls.asked).not.toContain("domainDefineXmlFlags");
  });
});
