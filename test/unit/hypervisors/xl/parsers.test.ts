import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseBridges, parseDefaultBridge } from "../../../../src/hypervisors/xl/parse-bridges.ts";
import { parseConsoleDaemon } from "../../../../src/hypervisors/xl/parse-console-daemon.ts";
import { askFileSystem, parseFileSystem } from "../../../../src/hypervisors/xl/parse-file-system.ts";
import { parseInfo } from "../../../../src/hypervisors/xl/parse-info.ts";
import { LIST_VOLUME_GROUPS, parseVolumeGroups } from "../../../../src/hypervisors/xl/parse-volume-groups.ts";
import { parseVolumes } from "../../../../src/hypervisors/xl/parse-volumes.ts";
import { fixture } from "./fixture.ts";
import { expectFactsOrRefusal } from "./mangled.ts";

describe("xl info -n", () => {
  it("of a real host is read", () => {
    expect(parseInfo(fixture("info-n"))).toEqual({
      hostname: "xen0",
      architecture: "x86_64",
      version: "4.17.7",
      memoryMib: 4095,
      memoryFreeMib: 2932,
      cpuCount: 2,
      sockets: 1,
      coresPerSocket: 2,
      threadsPerCore: 1,
      virtualization: new Set(["pv", "hvm", "hap", "gnttab-v1", "gnttab-v2"]),
      guestInterfaces: new Set(["xen-3.0-x86_64", "hvm-3.0-x86_32", "hvm-3.0-x86_32p", "hvm-3.0-x86_64"]),
      // xl says 6144 MiB, which counts the hole below 4 GiB.
      numaCells: [{ id: 0, memoryMib: 4095, cpus: [0, 1] }],
    });
  });

  it("without its tables tells the sockets by the counts, and no cells", () => {
    expect(parseInfo(fixture("info"))).toMatchObject({ sockets: 1, numaCells: [] });
    const four = fixture("info").replace("nr_cpus                : 2", "nr_cpus                : 8");
    expect(parseInfo(four)).toMatchObject({ cpuCount: 8, sockets: 4 });
  });

  it("of a host with two nodes and two sockets tells both", () => {
    const text = fixture("info-n")
      .replace("  1:       1        0        0\n", "  1:       0        1        1\n")
      .replace(
        "   0:      6144       2932      10\n",
        "   0:      2048       1000      10,21\n   1:      2047       1932      21,10\n",
      );
    expect(parseInfo(text)).toMatchObject({
      sockets: 2,
      numaCells: [
        { id: 0, memoryMib: 2048, cpus: [0] },
        { id: 1, memoryMib: 2047, cpus: [1] },
      ],
    });
  });

  it("that lacks what xl always tells is refused", () => {
    const text = fixture("info-n").replace(/^free_memory.*\n/m, "");
    expect(() => parseInfo(text)).toThrow(
      "'xl info -n' on the host cannot be read: it does not tell 'free_memory'",
    );
    expect(() => parseInfo(fixture("list"))).toThrow("does not tell");
  });

  it("mangled gives facts or a refusal", () => {
    expectFactsOrRefusal(parseInfo, [fixture("info-n"), fixture("info")], (info) => {
      expect(Number.isSafeInteger(info.memoryMib)).toBe(true);
      expect(info.sockets).toBeGreaterThan(0);
    });
  });
});

describe("volume groups", () => {
  const report = (...vg: readonly object[]): string => JSON.stringify({ report: [{ vg }], log: [] });
  const vg0 = { vg_name: "vg0", vg_size: "1069547520", vg_free: "801112064" };

  it("are asked for in bytes, and read", () => {
    expect(LIST_VOLUME_GROUPS.join(" ")).toContain("--units b --nosuffix");
    expect(parseVolumeGroups(report(vg0))).toEqual([
      { name: "vg0", capacityBytes: 1_069_547_520, availableBytes: 801_112_064 },
    ]);
    expect(parseVolumeGroups(report())).toEqual([]);
  });

  it("of other units or none are refused", () => {
    expect(() => parseVolumeGroups(report({ ...vg0, vg_size: "1.00g" }))).toThrow("'vgs'");
    expect(() => parseVolumeGroups("  WARNING: no")).toThrow("no JSON");
  });

  it("mangled give facts or a refusal", () => {
    expectFactsOrRefusal(parseVolumeGroups, [report(vg0, vg0)], (groups) => {
      for (const { availableBytes } of groups) expect(Number.isSafeInteger(availableBytes)).toBe(true);
    });
  });
});

describe("a file system's room", () => {
  it("is asked for without taking the path for an option, and read in bytes", () => {
    expect(askFileSystem("/srv/pool").at(-2)).toBe("--");
    expect(parseFileSystem("4096 66053995 59457057\n")).toEqual({
      capacityBytes: 270_557_163_520,
      availableBytes: 243_536_105_472,
    });
  });

  it("mangled gives facts or a refusal", () => {
    expectFactsOrRefusal(parseFileSystem, ["4096 66053995 59457057\n"], (room) => {
      expect(Number.isSafeInteger(room.capacityBytes)).toBe(true);
    });
  });
});

describe("bridges", () => {
  it("are read from the kernel's directories, each once", () => {
    const text =
      "/sys/class/net/xenbr0/bridge\n/sys/class/net/br-lan/bridge/\n/sys/class/net/xenbr0/bridge\n";
    expect(parseBridges(text)).toEqual(["br-lan", "xenbr0"]);
  });

  it("are none where there is none, and none that xl could not be given", () => {
    expect(parseBridges("")).toEqual([]);
    expect(
      parseBridges("/sys/class/net/*/bridge\n/sys/class/net/a,b/bridge\n/sys/class/net/../bridge\n"),
    ).toEqual([]);
  });

  it.each([
    ['vif.default.bridge="br7"\n', "br7"],
    ["# vif.default.bridge=\"no\"\n  vif.default.bridge = 'br8' # ours\n", "br8"],
    ['vif.default.bridge="br1"\nvif.default.bridge="br2"\n', "br2"],
    ['#vif.default.bridge="xenbr1"\n', "xenbr0"],
    ['vif.default.bridge="a,script=x"\n', "xenbr0"],
    ["", "xenbr0"],
  ])("%j in xl.conf makes %s the default", (text, bridge) => {
    expect(parseDefaultBridge(text)).toBe(bridge);
  });
});

describe("the daemon of the consoles", () => {
  const started = (...args: readonly string[]): string => ["/usr/sbin/xenconsoled", ...args, ""].join("\0");

  it.each([
    [started("--pid-file=/run/xenconsoled.pid"), false],
    [started("--log=guest"), true],
    [started("--log", "all"), true],
    [started("--log=hv"), false],
    [started("--log=none"), false],
    [started("--log=all", "--log=none"), false],
    ["", false],
  ])("started as %j logs guests: %s", (commandLine, logsGuests) => {
    expect(parseConsoleDaemon(commandLine)).toEqual({ logsGuests, logDirectory: "/var/log/xen/console" });
  });

  it("tells where it logs", () => {
    const directory = parseConsoleDaemon(started("--log=guest", "--log-dir=/srv/logs")).logDirectory;
    expect(directory).toBe("/srv/logs");
    expect(parseConsoleDaemon(started("--log-dir=relative")).logDirectory).toBe("/var/log/xen/console");
  });
});

describe("volumes", () => {
  /** The beginning of a qcow2 of version 3, as hexadecimal digits. */
  function qcow2(change: { version?: number; backing?: bigint; features?: bigint } = {}): string {
    const head = Buffer.alloc(80);
    head.write("QFI\u00fb", "latin1");
    head.writeUInt32BE(change.version ?? 3, 4);
    head.writeBigUInt64BE(change.backing ?? 0n, 8);
    head.writeBigUInt64BE(10n * 2n ** 30n, 24);
    head.writeBigUInt64BE(change.features ?? 0n, 72);
    return head.toString("hex");
  }
  const line = (name: string, head: string): string => `${name} 196624 400 512 ${head}\n`;
  const one = (name: string, head: string) => parseVolumes(line(name, head))[0];

  it("of raw files are as large as the file", () => {
    expect(parseVolumes(`${line("a.img", "00ff")}b 0 0 512 \n`)).toEqual([
      {
        name: "a.img",
        format: "raw",
        capacityBytes: 196_624,
        allocationBytes: 204_800,
        namesOtherFiles: false,
      },
      { name: "b", format: "raw", capacityBytes: 0, allocationBytes: 0, namesOtherFiles: false },
    ]);
  });

  it("of qcow2 are as large as the header says", () => {
    expect(one("a.qcow2", qcow2())).toEqual({
      name: "a.qcow2",
      format: "qcow2",
      capacityBytes: 10 * 2 ** 30,
      allocationBytes: 204_800,
      namesOtherFiles: false,
    });
    expect(one("a.qcow2", qcow2({ version: 2 }))).toMatchObject({ format: "qcow2" });
  });

  it("that name other files are told apart", () => {
    expect(one("a", qcow2({ backing: 400n }))).toMatchObject({ namesOtherFiles: true });
    expect(one("a", qcow2({ features: 4n }))).toMatchObject({ namesOtherFiles: true });
    // Version 2 has no features: what stands there is something else.
    expect(one("a", qcow2({ version: 2, features: 4n }))).toMatchObject({ namesOtherFiles: false });
  });

  it("that are called raw are, whatever a guest wrote to the beginning", () => {
    expect(one("a.raw", qcow2({ features: 4n }))).toMatchObject({ format: "raw", capacityBytes: 196_624 });
  });

  it("with half a header or an unknown version are raw", () => {
    expect(one("a", qcow2().slice(0, 142))).toMatchObject({ format: "raw" });
    expect(one("a", qcow2({ version: 4 }))).toMatchObject({ format: "raw" });
  });

  it("mangled give facts or a refusal", () => {
    expectFactsOrRefusal(
      parseVolumes,
      [line("a", qcow2()), line("b", "00") + line("c", qcow2())],
      (volumes) => {
        for (const { capacityBytes } of volumes) expect(Number.isSafeInteger(capacityBytes)).toBe(true);
      },
    );
  });
});

it("readers of lines never throw", () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      expect(parseBridges(text)).toBeInstanceOf(Array);
      expect(parseDefaultBridge(text)).toBeTypeOf("string");
      expect(parseConsoleDaemon(text).logDirectory).toMatch(/^\//);
    }),
  );
});
