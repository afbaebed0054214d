import { buffer } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { int, struct } from "../../src/libvirt-rpc/codec.ts";
import * as rpc from "../../src/libvirt-rpc/index.ts";
import { type DeclaredProcedure, remote } from "../../src/libvirt-rpc/procedure.ts";
import { type KvmHost, startKvmHost } from "../rigs/kvm/kvm-host.ts";
import { type Use, withConnection } from "./libvirt-connection.ts";

let host: KvmHost;
let other: KvmHost;

beforeAll(async () => {
  [host, other] = await Promise.all([startKvmHost(), startKvmHost()]);
});

afterAll(async () => {
  await Promise.all([host.stop(), other.stop()]);
});

const using: Use = (uri, use) => withConnection(host.socketPath, uri, use);

/** Calls something the driver may refuse. What must not happen is that the daemon cannot read the call. */
async function understood<A, R>(
  connection: rpc.LibvirtConnection,
  procedure: DeclaredProcedure<A, R>,
  args: A,
): Promise<R | rpc.LibvirtError> {
  try {
    return await connection.call(procedure, args);
  } catch (error) {
    if (!(error instanceof rpc.LibvirtError)) throw error;
    expect({ procedure: error.procedure, domain: error.domain, message: error.message }).not.toMatchObject({
      domain: rpc.errorDomain.rpc,
    });
    return error;
  }
}

describe("the daemon and its machine", () => {
  test("are described", async () => {
    await using("qemu:///system", async (connection) => {
      expect(await connection.call(rpc.connectGetType, undefined)).toEqual({ type: "QEMU" });
      const { libVer } = await connection.call(rpc.connectGetLibVersion, undefined);
      expect(libVer).toBeGreaterThan(6_000_000n);
      const { hvVer } = await connection.call(rpc.connectGetVersion, undefined);
      expect(hvVer).toBeGreaterThan(4_000_000n);
      expect(await connection.call(rpc.connectGetHostname, undefined)).toEqual({ hostname: host.name });
      const { capabilities } = await connection.call(rpc.connectGetCapabilities, undefined);
      expect(capabilities).toContain("<host>");
      const wanted = { emulatorBin: null, arch: "x86_64", machine: null, virtType: "qemu", flags: 0 };
      const ofDomains = await connection.call(rpc.connectGetDomainCapabilities, wanted);
      expect(ofDomains.capabilities).toContain("<domainCapabilities>");
    });
  });

  test("count their CPUs and memory", async () => {
    await using("qemu:///system", async (connection) => {
      const node = await connection.call(rpc.nodeGetInfo, undefined);
      expect(node.model).toMatch(/^[a-z0-9_]+$/);
      expect(node.cpus).toBeGreaterThan(0);
      const { freeMem } = await connection.call(rpc.nodeGetFreeMemory, undefined);
      expect(freeMem).toBeGreaterThan(0n);
      const { cells } = await connection.call(rpc.nodeGetCellsFreeMemory, { startCell: 0, maxCells: 64 });
      expect(cells.length).toBe(node.nodes);
      const ask = (nParams: number) =>
        connection.call(rpc.nodeGetMemoryStats, { nParams, cellNum: -1, flags: 0 });
      const { nParams } = await ask(0);
      const { params } = await ask(nParams);
      expect(params.map(({ field }) => field)).toEqual(expect.arrayContaining(["total", "free"]));
    });
  });
});

describe("a mock domain", () => {
  const defined = `<domain type="test"><name>web-1</name><uuid>0192aaaa-0000-7000-8000-000000000001</uuid>
    <memory unit="MiB">64</memory><currentMemory unit="MiB">64</currentMemory><vcpu current="1">2</vcpu>
    <os><type>hvm</type></os></domain>`;

  test("is defined, driven through its life and undefined, each step told as an event", async () => {
    await using("test:///default", async (connection) => {
      const events: rpc.DomainEvent[] = [];
      connection.onEvent((event) => events.push(event));
      const registration = { eventId: rpc.domainEventId.lifecycle, domain: null };
      const { callbackId } = await connection.call(rpc.connectDomainEventCallbackRegisterAny, registration);
      const { domain } = await connection.call(rpc.domainDefineXmlFlags, { xml: defined, flags: 0 });
      expect(domain).toEqual({ name: "web-1", uuid: "0192aaaa-0000-7000-8000-000000000001", id: -1 });
      const state = async () => (await connection.call(rpc.domainGetState, { domain, flags: 0 })).state;
      const started = await connection.call(rpc.domainCreateWithFlags, { domain, flags: 0 });
      expect(started.domain.id).toBeGreaterThan(0);
      expect(await state()).toBe(1);
      await connection.call(rpc.domainSuspend, { domain });
      expect(await state()).toBe(3);
      await connection.call(rpc.domainResume, { domain });
      await connection.call(rpc.domainDestroyFlags, { domain, flags: 0 });
      expect(await state()).toBe(5);
      await connection.call(rpc.domainUndefineFlags, { domain, flags: 0 });
      await vi.waitFor(() => {
        const seen = events.map((event) => event.kind === "lifecycle" && event.event);
        // virDomainEventType: defined, started, suspended, resumed, stopped, undefined.
        expect(seen).toEqual([0, 2, 3, 4, 5, 1]);
      });
      expect(events.every((event) => event.callbackId === callbackId)).toBe(true);
      await connection.call(rpc.connectDomainEventCallbackDeregisterAny, { callbackId });
      await expect(connection.call(rpc.domainLookupByUuid, { uuid: domain.uuid })).rejects.toMatchObject({
        code: rpc.errorCode.noDomain,
        domain: rpc.errorDomain.test,
        procedure: "domainLookupByUuid",
      });
    });
  });

  test("is found, described and measured", async () => {
    await using("test:///default", async (connection) => {
      const { domains } = await connection.call(rpc.connectListAllDomains, { flags: 0 });
      expect(domains.map(({ name }) => name)).toEqual(["test"]);
      const { domain } = await connection.call(rpc.domainLookupByName, { name: "test" });
      expect(await connection.call(rpc.domainLookupByUuid, { uuid: domain.uuid })).toEqual({ domain });
      const info = await connection.call(rpc.domainGetInfo, { domain });
      expect(info).toMatchObject({ state: 1, maxMem: 8_388_608n, memory: 2_097_152n, nrVirtCpu: 2 });
      const { xml } = await connection.call(rpc.domainGetXmlDesc, { domain, flags: 0 });
      expect(xml).toContain(`<uuid>${domain.uuid}</uuid>`);
      const { retStats } = await connection.call(rpc.connectGetAllDomainStats, {
        domains: [],
        stats: 0,
        flags: 0,
      });
      expect(rpc.typedParamMap(retStats[0]?.params ?? []).get("state.state")).toBe(1);
      const { interfaces } = await connection.call(rpc.domainInterfaceAddresses, {
        domain,
        source: 0,
        flags: 0,
      });
      expect(interfaces[0]?.addrs[0]).toMatchObject({ type: 0, prefix: 24 });
    });
  });

  test("keeps metadata and takes new sizes", async () => {
    await using("test:///default", async (connection) => {
      const { domain } = await connection.call(rpc.domainLookupByName, { name: "test" });
      const uri = "urn:test";
      const metadata = "<mark>ours</mark>";
      const write = { domain, type: 2, metadata, key: "t", uri, flags: 0 };
      await connection.call(rpc.domainSetMetadata, write);
      const read = await connection.call(rpc.domainGetMetadata, { domain, type: 2, uri, flags: 0 });
      expect(read.metadata).toContain("ours");
      await connection.call(rpc.domainSetMetadata, { ...write, metadata: null });
      await expect(
        connection.call(rpc.domainGetMetadata, { domain, type: 2, uri, flags: 0 }),
      ).rejects.toMatchObject({
        code: rpc.errorCode.noDomainMetadata,
      });
      await connection.call(rpc.domainSetMemoryFlags, { domain, memory: 1_048_576n, flags: 1 });
      await connection.call(rpc.domainSetVcpusFlags, { domain, nVcpus: 1, flags: 1 });
      expect(await connection.call(rpc.domainGetInfo, { domain })).toMatchObject({
        memory: 1_048_576n,
        nrVirtCpu: 1,
      });
    });
  });

  test("is saved, shut down, rebooted and reset", async () => {
    await using("test:///default", async (connection) => {
      const { domain } = await connection.call(rpc.domainLookupByName, { name: "test" });
      const saved = async () =>
        (await connection.call(rpc.domainHasManagedSaveImage, { domain, flags: 0 })).result;
      await connection.call(rpc.domainManagedSave, { domain, flags: 0 });
      expect(await saved()).toBe(1);
      await connection.call(rpc.domainManagedSaveRemove, { domain, flags: 0 });
      expect(await saved()).toBe(0);
      await connection.call(rpc.domainCreateWithFlags, { domain, flags: 0 });
      await connection.call(rpc.domainReboot, { domain, flags: 0 });
      await understood(connection, rpc.domainReset, { domain, flags: 0 });
      await understood(connection, rpc.domainAbortJob, { domain });
      await understood(connection, rpc.domainGetJobInfo, { domain });
      await connection.call(rpc.domainShutdownFlags, { domain, flags: 0 });
      expect(await connection.call(rpc.domainGetState, { domain, flags: 0 })).toMatchObject({ state: 5 });
    });
  });

  test("shows its screen as a stream", async () => {
    await using("test:///default", async (connection) => {
      const { domain } = await connection.call(rpc.domainLookupByName, { name: "test" });
      const screenshot = connection.download(rpc.domainScreenshot, { domain, screen: 0, flags: 0 });
      const picture = await buffer(screenshot);
      expect(await screenshot.reply).toEqual({ mime: "image/png" });
      expect(picture.subarray(1, 4).toString()).toBe("PNG");
    });
  });

  test("is one of many calls at once, each with its own answer", async () => {
    await using("test:///default", async (connection) => {
      const names = Array.from({ length: 500 }, (_, i) => (i % 2 === 0 ? "test" : `none-${i}`));
      const outcomes = await Promise.allSettled(
        names.map((name) => connection.call(rpc.domainLookupByName, { name })),
      );
      for (const [i, outcome] of outcomes.entries()) {
        if (outcome.status === "fulfilled") expect(outcome.value.domain.name).toBe(names[i]);
        else expect(outcome.reason).toMatchObject({ code: rpc.errorCode.noDomain });
      }
      expect(outcomes.filter(({ status }) => status === "fulfilled").length).toBe(250);
    });
  });
});

describe("a QEMU domain", () => {
  test("is understood in every call about its devices, its console and its agent", async () => {
    const xml = `<domain type="qemu"><name>drawn</name><memory unit="MiB">32</memory><os><type arch="x86_64">hvm</type></os>
      <devices><serial type="pty"/><video><model type="vga"/></video><graphics type="vnc" autoport="yes"/></devices></domain>`;
    await using("qemu:///system", async (connection) => {
      const { domain } = await connection.call(rpc.domainDefineXmlFlags, { xml, flags: 0 });
      try {
        await connection.call(rpc.domainCreateWithFlags, { domain, flags: 1 });
        const disk = `<disk type="file" device="disk"><source file="/nowhere"/><target dev="vda" bus="virtio"/></disk>`;
        for (const procedure of [
          rpc.domainAttachDeviceFlags,
          rpc.domainDetachDeviceFlags,
          rpc.domainUpdateDeviceFlags,
        ]) {
          expect(await understood(connection, procedure, { domain, xml: disk, flags: 1 })).toBeInstanceOf(
            rpc.LibvirtError,
          );
        }
        const ping = { domain, cmd: '{"execute":"guest-ping"}', timeout: 1, flags: 0 };
        expect(await understood(connection, rpc.qemuDomainAgentCommand, ping)).toBeInstanceOf(
          rpc.LibvirtError,
        );
        expect(
          (await buffer(connection.download(rpc.domainScreenshot, { domain, screen: 0, flags: 0 }))).length,
        ).toBeGreaterThan(100);
        const console = connection.download(rpc.domainOpenConsole, { domain, devName: null, flags: 0 });
        await console.reply;
        console.destroy();
        expect(await connection.call(rpc.domainGetState, { domain, flags: 0 })).toMatchObject({ state: 3 });
      } finally {
        await connection.call(rpc.domainDestroyFlags, { domain, flags: 0 });
        await connection.call(rpc.domainUndefineFlags, { domain, flags: 0 });
      }
    });
  });
});

describe("networks", () => {
  test("are defined, started, described and removed", async () => {
    await using("qemu:///system", async (connection) => {
      const xml = "<network><name>lab</name><bridge name='virbr7'/></network>";
      const { network } = await connection.call(rpc.networkDefineXml, { xml });
      expect(await connection.call(rpc.networkLookupByName, { name: "lab" })).toEqual({ network });
      await connection.call(rpc.networkCreate, { network });
      await connection.call(rpc.networkSetAutostart, { network, autostart: true });
      expect(await connection.call(rpc.networkIsActive, { network })).toEqual({ active: true });
      const { networks } = await connection.call(rpc.connectListAllNetworks, { flags: 0 });
      expect(networks.map(({ name }) => name)).toContain("lab");
      expect((await connection.call(rpc.networkGetXmlDesc, { network, flags: 0 })).xml).toContain("virbr7");
      await connection.call(rpc.networkDestroy, { network });
      await connection.call(rpc.networkUndefine, { network });
      await expect(connection.call(rpc.networkLookupByName, { name: "lab" })).rejects.toMatchObject({
        code: rpc.errorCode.noNetwork,
      });
    });
  });

  test("tell their leases", async () => {
    await using("test:///default", async (connection) => {
      const { network } = await connection.call(rpc.networkLookupByName, { name: "default" });
      await understood(connection, rpc.networkGetDhcpLeases, { network, mac: null, flags: 0 });
    });
    await using("qemu:///system", async (connection) => {
      const { network } = await connection.call(rpc.networkLookupByName, { name: "default" });
      expect(await connection.call(rpc.networkGetDhcpLeases, { network, mac: null, flags: 0 })).toEqual({
        leases: [],
      });
    });
  });
});

test("a procedure the daemon does not know is recognised", async () => {
  await using("test:///default", async (connection) => {
    const future = remote("fromTheFuture", 9_999, struct({ flags: int }), struct({ result: int }));
    await expect(connection.call(future, { flags: 0 })).rejects.toMatchObject({ unsupported: true });
    expect(await connection.call(rpc.connectGetType, undefined)).toEqual({ type: "TEST" });
  });
});

test("a daemon that hangs delays nobody else, and is given up", async () => {
  const hanging = await rpc.connectLibvirt({
    transport: { kind: "unix", path: host.socketPath },
    uri: "test:///default",
    keepalive: { intervalMs: 300, count: 2 },
  });
  const healthy = await rpc.connectLibvirt({
    transport: { kind: "unix", path: other.socketPath },
    uri: "test:///default",
  });
  host.pauseLibvirtd();
  try {
    const late = expect(
      hanging.call(rpc.connectGetHostname, undefined, { timeoutMs: 200 }),
    ).rejects.toBeInstanceOf(rpc.CallTimeoutError);
    const lost = expect(hanging.call(rpc.connectGetHostname, undefined)).rejects.toMatchObject({
      kind: "timeout",
    });
    for (let i = 0; i < 200; i++) {
      expect(await healthy.call(rpc.connectGetHostname, undefined, { timeoutMs: 5_000 })).toEqual({
        hostname: other.name,
      });
    }
    await Promise.all([late, lost]);
    expect(hanging.closed).toBe(true);
    const again = rpc.connectLibvirt({
      transport: { kind: "unix", path: host.socketPath },
      uri: "test:///default",
      connectTimeoutMs: 300,
    });
    await expect(again).rejects.toMatchObject({ kind: "timeout" });
  } finally {
    host.continueLibvirtd();
    await healthy.close();
  }
});

test("a session comes back after its daemon was restarted, events and all", async () => {
  const session = new rpc.LibvirtSession({
    transport: { kind: "unix", path: other.socketPath },
    uri: "qemu:///system",
    events: ["lifecycle", "reboot", "ioError", "jobCompleted", "agentLifecycle", "deviceRemoved"],
    backoff: { initialMs: 50, maxMs: 500 },
  });
  const states: rpc.SessionState[] = [];
  const events: rpc.DomainEvent[] = [];
  session.onState((state) => states.push(state));
  session.onEvent((event) => events.push(event));
  session.start();
  const connectedTimes = (times: number) =>
    vi.waitFor(
      () => {
        expect(states.filter((state) => state === "connected").length).toBe(times);
      },
      { timeout: 30_000 },
    );
  try {
    await connectedTimes(1);
    await other.stopLibvirtd("SIGKILL");
    await vi.waitFor(() => {
      expect(session.connection).toBeNull();
    });
    await other.startLibvirtd();
    await connectedTimes(2);
    const xml = `<domain type="qemu"><name>after</name><memory>1024</memory><os><type arch="x86_64">hvm</type></os></domain>`;
    const { domain } = await session.call(rpc.domainDefineXmlFlags, { xml, flags: 0 });
    await session.call(rpc.domainUndefineFlags, { domain, flags: 0 });
    await vi.waitFor(() => {
      expect(events.map((event) => event.kind === "lifecycle" && event.event)).toEqual([0, 1]);
    });
  } finally {
    await session.close();
  }
});
