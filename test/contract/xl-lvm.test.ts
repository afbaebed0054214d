import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type { Call, DomainSpec, HostConnection, VolumeAbility } from "../../src/hypervisors/hypervisor.ts";
import { newId, type VmId } from "../../src/lib/ids.ts";
import { startXenHost, type XenRigHost } from "../rigs/xen/xen-host.ts";
import { type ContractWorld, describeVolumeContract } from "./suite.ts";
import { digestOfZeros, GROUP, lvmHooks, lvmWorld, runInDom0 } from "./xl-lvm-world.ts";
import { XL_PARAVIRTUAL } from "./xl-world.ts";

vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });

const MIB = 1 << 20;

let host: XenRigHost;

beforeAll(async () => {
  host = await startXenHost();
});
afterAll(async () => {
  await host.stop();
});

describeVolumeContract(
  {
    ...{ name: "xl-lvm", title: "xl, LVM", hypervisor: "xen", guestType: "pv", declared: XL_PARAVIRTUAL },
    volumeMembers: ["uploadPart", "digestVolume"],
    setUp: () => lvmWorld(host),
    hooks: lvmHooks(() => host),
  },
  ["raw"],
);

describe("a volume in a volume group", () => {
  let world: ContractWorld;
  let connection: HostConnection;
  const call: Call = {
    signal: new AbortController().signal,
    timeoutMs: 300_000,
    beforeSend: () => undefined,
  };
  const ref = (name: string) => ({ pool: GROUP, name });

  beforeAll(async () => {
    world = await lvmWorld(host);
    connection = await world.driver.connect(world.target, call);
  });
  afterAll(async () => {
    await connection.close();
    await world.tearDown();
  });

  function volumes(): VolumeAbility {
    if (connection.volumes === undefined) throw new Error("the host makes no volumes");
    return connection.volumes;
  }

  function digest(path: string): Promise<string> {
    return runInDom0(host, 'sha256sum <"$1" | cut -d " " -f 1', path);
  }

  function tagsOf(name: string): Promise<string> {
    return runInDom0(host, 'lvs --noheadings -o lv_tags "$1/$2" | tr -d " "', GROUP, name);
  }

  it("is shown among the host's pools", async () => {
    const { pools } = await connection.inventory(call);
    expect(pools.find(({ name }) => name === GROUP)).toMatchObject({ type: "logical", active: true });
  });

  it("holds nothing of what was on the disk before, though it grows", async () => {
    const { path } = await volumes().createVolume(
      { ...ref("new.raw"), format: "raw", capacityBytes: MIB },
      call,
    );
    expect(await digest(path)).toBe(digestOfZeros(MIB));
    await volumes().growVolume(ref("new.raw"), 3 * MIB, call);
    expect(await digest(path)).toBe(digestOfZeros(3 * MIB));
    await volumes().deleteVolume(ref("new.raw"), call);
  });

  it("whose making was broken off is none, and is made from the beginning", async () => {
    const make = 'lvcreate -q -y -W n -Z n --addtag drover-part=half.raw -n half.raw -L 2m "$1"';
    await runInDom0(host, make, GROUP);
    expect(await volumes().observeVolume(ref("half.raw"), call)).toBeNull();
    expect(await volumes().listVolumes(GROUP, "half", call)).toEqual([]);
    const made = await volumes().createVolume(
      { ...ref("half.raw"), format: "raw", capacityBytes: MIB },
      call,
    );
    expect(made.capacityBytes).toBe(MIB);
    expect(await digest(made.path)).toBe(digestOfZeros(MIB));
    expect(await tagsOf("half.raw")).toBe("drover=half.raw");
    await volumes().deleteVolume(ref("half.raw"), call);
  });

  it("whose growing was broken off is as large as before, and what it grows by is cleared the next time", async () => {
    const { path } = await volumes().createVolume(
      { ...ref("grow.raw"), format: "raw", capacityBytes: MIB },
      call,
    );
    const begin = `lvchange -q --addtag drover-grow=${MIB} "$1/grow.raw" && lvextend -q -L 2m "$1/grow.raw" && {
      head -c ${MIB} /dev/zero; yes OLD | head -c ${MIB}; } >"/dev/$1/grow.raw"`;
    await runInDom0(host, begin, GROUP);
    expect(await volumes().observeVolume(ref("grow.raw"), call)).toMatchObject({ capacityBytes: MIB });
    await volumes().growVolume(ref("grow.raw"), 2 * MIB, call);
    expect(await volumes().observeVolume(ref("grow.raw"), call)).toMatchObject({ capacityBytes: 2 * MIB });
    expect(await digest(path)).toBe(digestOfZeros(2 * MIB));
    expect(await tagsOf("grow.raw")).toBe("drover=grow.raw");
    await volumes().deleteVolume(ref("grow.raw"), call);
  });

  it("is the disk of a guest, which reads the device itself", async () => {
    const volume = ref("root.raw");
    await volumes().createVolume({ ...volume, format: "raw", capacityBytes: MIB }, call);
    const uuid = newId<VmId>();
    const { installationId } = world.target;
    const guest: DomainSpec = {
      ...{
        uuid,
        name: `lvm-${uuid.slice(-12)}`,
        installationId,
        guestType: "pv",
        cpuCount: 1,
        memoryMib: 64,
      },
      boot: { kind: "firmware", firmware: "pvgrub" },
      disks: [{ name: "root", kind: "disk", volume, format: "raw" }],
      ...{ nics: [], consolePool: GROUP },
    };
    await connection.defineDomain(guest, call);
    await connection.startDomain(uuid, call);
    expect(await connection.observeDomain(uuid, call)).toMatchObject({ power: "running" });
    // Served by dom0's kernel, and not by a process of QEMU's.
    expect(await runInDom0(host, 'xl block-list "$1"', guest.name)).toContain("/local/domain/0/backend/vbd/");
    await connection.forceOffDomain(uuid, call);
    await connection.removeDomain(uuid, call);
    await volumes().deleteVolume(volume, call);
  });

  it("that somebody else made is neither shown nor touched", async () => {
    await runInDom0(host, 'lvcreate -q -y -n theirs.raw -L 1m "$1"', GROUP);
    expect(await volumes().observeVolume(ref("theirs.raw"), call)).toBeNull();
    expect(await volumes().listVolumes(GROUP, "", call)).toEqual([]);
    const spec = { ...ref("theirs.raw"), format: "raw" as const, capacityBytes: MIB };
    await expect(volumes().createVolume(spec, call)).rejects.toMatchObject({ reason: "foreign" });
    await expect(volumes().deleteVolume(ref("theirs.raw"), call)).rejects.toMatchObject({
      reason: "foreign",
    });
    expect(await tagsOf("theirs.raw")).toBe("");
    await runInDom0(host, 'lvremove -q -y "$1/theirs.raw"', GROUP);
  });

  it("may have a name that is longer than LVM's, or that LVM keeps for itself", async () => {
    for (const name of [`long-${"a-".repeat(60)}.raw`, "snapshot.raw", "disk_rimage_0"]) {
      const content = randomBytes(MIB);
      await volumes().createVolume({ ...ref(name), format: "raw", capacityBytes: MIB }, call);
      await volumes().uploadVolume(ref(name), chunked(content), MIB, call);
      expect(await volumes().listVolumes(GROUP, name.slice(0, 6), call)).toMatchObject([{ name }]);
      await volumes().deleteVolume(ref(name), call);
      expect(await volumes().observeVolume(ref(name), call)).toBeNull();
    }
  });

  it("is refused where the group has no room, and as qcow2", async () => {
    const spec = { ...ref("big.raw"), format: "raw" as const, capacityBytes: 1024 * MIB };
    await expect(volumes().createVolume(spec, call)).rejects.toMatchObject({ reason: "storage-full" });
    const qcow2 = { ...ref("a.qcow2"), format: "qcow2" as const, capacityBytes: MIB };
    await expect(volumes().createVolume(qcow2, call)).rejects.toMatchObject({ reason: "invalid-spec" });
    await volumes().createVolume({ ...spec, capacityBytes: MIB }, call);
    await expect(volumes().growVolume(ref("big.raw"), 1024 * MIB, call)).rejects.toMatchObject({
      reason: "storage-full",
    });
    expect(await volumes().observeVolume(ref("big.raw"), call)).toMatchObject({ capacityBytes: MIB });
    await expect(
      volumes().uploadVolume(ref("big.raw"), chunked(Buffer.alloc(2 * MIB)), 2 * MIB, call),
    ).rejects.toMatchObject({ reason: "invalid-spec" });
    await volumes().deleteVolume(ref("big.raw"), call);
  });
});

async function* chunked(content: Buffer): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < content.length; at += 100_000) yield content.subarray(at, at + 100_000);
}
