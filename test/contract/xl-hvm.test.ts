import { afterAll, beforeAll, expect, it } from "vitest";
import type { Call, DomainSpec, HostConnection, ObservedDomain } from "../../src/hypervisors/hypervisor.ts";
import { newId, type VmId } from "../../src/lib/ids.ts";
import { startXenHost, type XenRigHost } from "../rigs/xen/xen-host.ts";
import type { ContractWorld } from "./suite.ts";
import { XL_CAPABILITIES, xlWorld } from "./xl-world.ts";

// An emulated machine in an emulated machine takes minutes to boot a guest: the suite's many boots are for pv and pvh.
// What the driver does differently for hvm is its configuration, the device model, and how the guest is asked.

const PATIENCE = 900_000;

let host: XenRigHost;
let world: ContractWorld;
let connection: HostConnection;

const call: Call = {
  signal: new AbortController().signal,
  timeoutMs: PATIENCE,
  beforeSend: () => undefined,
};

beforeAll(async () => {
  host = await startXenHost();
  world = await xlWorld(host);
  connection = await world.driver.connect(world.target, call);
}, PATIENCE);
afterAll(async () => {
  await connection.close();
  await host.stop();
}, PATIENCE);

function spec(volume: string): DomainSpec {
  const uuid = newId<VmId>();
  return {
    uuid,
    name: `emulated-${uuid.slice(-12)}`,
    installationId: world.target.installationId,
    guestType: "hvm",
    cpuCount: 1,
    memoryMib: 128,
    boot: { kind: "firmware", firmware: "bios" },
    disks: [{ name: "root", kind: "disk", volume: { pool: world.pool, name: volume }, format: "qcow2" }],
    nics: [{ name: "eth0", network: "default", macAddress: "52:54:00:00:00:01" }],
    consolePool: world.pool,
  };
}

it(
  "offers emulated machines, with a firmware",
  async () => {
    const { guestTypes } = await connection.probe(call);
    const hvm = guestTypes.find(({ guestType }) => guestType === "hvm");
    expect([...(hvm?.capabilities ?? [])].sort()).toEqual([...XL_CAPABILITIES, "firmwareBios"].sort());
    expect(guestTypes.map(({ guestType }) => guestType)).toEqual(["pvh", "pv", "hvm"]);
  },
  PATIENCE,
);

it(
  "takes an emulated machine through its life",
  async () => {
    const volume = { pool: world.pool, name: "emulated.qcow2" };
    await connection.volumes?.createVolume({ ...volume, format: "qcow2", capacityBytes: 64 << 20 }, call);
    const machine = spec(volume.name);
    const { uuid } = machine;
    const seen = async (): Promise<ObservedDomain["power"] | undefined> =>
      (await connection.observeDomain(uuid, call))?.power;
    await connection.defineDomain(machine, call);
    await connection.startDomain(uuid, call);
    expect(await seen()).toBe("running");
    await connection.pause?.pauseDomain(uuid, call);
    expect(await seen()).toBe("paused");
    await connection.pause?.resumeDomain(uuid, call);
    expect(await seen()).toBe("running");
    // Its BIOS has nobody who listens: it is asked, and runs on.
    await connection.requestShutdown(uuid, call);
    expect(await seen()).toBe("running");
    await connection.saveDomain?.(uuid, call);
    expect(await seen()).toBe("saved");
    await connection.startDomain(uuid, call);
    expect(await seen()).toBe("running");
    await connection.resetDomain?.(uuid, call);
    expect(await seen()).toBe("running");
    await connection.forceOffDomain(uuid, call);
    expect(await seen()).toBe("off");
    await connection.removeDomain(uuid, call);
    expect(await seen()).toBeUndefined();
  },
  PATIENCE,
);
