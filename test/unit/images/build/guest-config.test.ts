import { execa } from "execa";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { bootSectors, PARTITION_OFFSET_BYTES } from "../../../../src/images/build/boot-sectors.ts";
import { guestFiles, kernelVersionIn } from "../../../../src/images/build/guest-config.ts";
import { diskSizeGib } from "../../../../src/images/build/make-disk.ts";
import { GIB } from "../../../../src/lib/units.ts";

const OPTIONS = {
  rootUuid: "1b71c984-c831-4b7a-a570-be8b6f697ad0",
  kernelVersion: "6.1.0-9-amd64",
  cloudInit: true,
};
const files = (cloudInit: boolean) =>
  new Map(guestFiles({ ...OPTIONS, cloudInit }).map((f) => [f.path, f.content]));

describe("the files of a guest", () => {
  it("mount and boot the root by its UUID, with consoles of KVM and of Xen", () => {
    expect(files(true).get("etc/fstab")).toMatch(/^UUID=1b71c984-\S+ \/ ext4 /);
    const menu = files(true).get("boot/grub/grub.cfg") ?? "";
    expect(menu).toMatch(
      /linux \/boot\/vmlinuz-6\.1\.0-9-amd64 root=UUID=1b71c984-\S+ ro \$drover_consoles\n/,
    );
    expect(menu).toMatch(
      /console=hvc0 console=ttyS0,115200"\nif .*xen_pvh.*\n.*console=tty0 console=hvc0"\nfi\n/,
    );
    expect(menu).toContain("initrd /boot/initrd.img-6.1.0-9-amd64");
  });

  it("make update-grub write the same consoles, and leave the choice to GRUB", async () => {
    const found = files(true);
    const script = guestFiles(OPTIONS).find(({ path }) => path === "etc/grub.d/01_drover");
    expect(script?.isProgram).toBe(true);
    const { stdout } = await execa("sh", ["-s"], { input: script?.content ?? "" });
    expect(found.get("boot/grub/grub.cfg")).toContain(`${stdout}\n`);
    const defaults = `${found.get("etc/default/grub.d/drover.cfg") ?? ""}printf %s "$GRUB_CMDLINE_LINUX"`;
    expect((await execa("sh", ["-s"], { input: defaults })).stdout).toBe("$drover_consoles");
  });

  it("configure the network by cloud-init, or by DHCP without it", () => {
    expect(files(true).get("etc/cloud/cloud.cfg.d/90-drover.cfg")).toContain("NoCloud");
    expect([...files(true).keys()]).not.toContain("etc/systemd/network/80-dhcp.network");
    expect(files(false).get("etc/systemd/network/80-dhcp.network")).toContain("DHCP=yes");
    expect([...files(false).keys()].filter((path) => path.includes("cloud"))).toEqual([]);
  });

  it("give a guest nothing that is another's", () => {
    for (const cloudInit of [true, false]) {
      expect(files(cloudInit).get("etc/machine-id")).toBe("");
      expect([...files(cloudInit).keys()].filter((path) => /hostname|shadow|ssh_host/.test(path))).toEqual(
        [],
      );
    }
  });
});

it("takes the newest kernel", () => {
  const names = [
    "vmlinuz-6.1.0-9-amd64",
    "initrd.img-6.1.0-10-amd64",
    "vmlinuz-6.1.0-10-amd64",
    "vmlinuz-",
    "grub",
  ];
  expect(kernelVersionIn(names)).toBe("6.1.0-10-amd64");
  expect(kernelVersionIn(["grub"])).toBeNull();
});

describe("the boot sectors", () => {
  const read = (diskBytes: number, core: Uint8Array) => {
    const sectors = bootSectors({
      bootCode: new Uint8Array(512).fill(7),
      core,
      diskBytes,
      signature: 0x1b71c984,
    });
    return { sectors, view: new DataView(sectors.buffer) };
  };

  it("hold one active Linux partition up to the end of the disk, and GRUB's core behind", () => {
    const size = fc.integer({ min: 1, max: 1024 });
    const core = fc.uint8Array({ minLength: 1, maxLength: 4096 });
    fc.assert(
      fc.property(size, core, (gib, bytes) => {
        const { sectors, view } = read(gib * GIB, bytes);
        expect([...sectors.subarray(0, 440)].every((byte) => byte === 7)).toBe(true);
        expect(view.getUint32(440, true)).toBe(0x1b71c984);
        expect([view.getUint8(446), view.getUint8(450)]).toEqual([0x80, 0x83]);
        const [first, count] = [view.getUint32(454, true), view.getUint32(458, true)];
        expect(first * 512).toBe(PARTITION_OFFSET_BYTES);
        expect((first + count) * 512).toBe(gib * GIB);
        expect(view.getUint16(510)).toBe(0x55aa);
        expect(sectors.subarray(512)).toEqual(bytes);
      }),
    );
  });

  it("do not overwrite the partition with a core that is too large", () => {
    expect(() => read(GIB, new Uint8Array(PARTITION_OFFSET_BYTES))).toThrow(RangeError);
  });
});

it("makes a disk of whole GiB with room for the files and more", () => {
  expect(diskSizeGib(0.8 * GIB)).toBe(2);
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 500 * GIB }), (bytes) => {
      expect(diskSizeGib(bytes) * GIB).toBeGreaterThanOrEqual(bytes + 512 * 1024 * 1024);
      expect(Number.isInteger(diskSizeGib(bytes))).toBe(true);
    }),
  );
});
