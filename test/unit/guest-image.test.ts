import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { masterBootRecord } from "../../src/setup/guest-image/boot-disk.mjs";
import { packCpio } from "../../src/setup/guest-image/cpio.mjs";
import { collectModules, loadOrder, parseDepends } from "../../src/setup/guest-image/kernel-modules.mjs";
import { rootFiles } from "../../src/setup/guest-image/root-files.mjs";

const dirs: string[] = [];

afterEach(() => {
  for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true });
});

interface Member {
  readonly path: string;
  readonly mode: number;
  readonly content: string;
}

/** Reads a newc archive as the kernel does, without sharing code with the writer. */
function unpackCpio(archive: Buffer): Member[] {
  const members: Member[] = [];
  let offset = 0;
  for (;;) {
    expect(archive.toString("latin1", offset, offset + 6)).toBe("070701");
    const number = (index: number): number => {
      const start = offset + 6 + index * 8;
      return Number.parseInt(archive.toString("latin1", start, start + 8), 16);
    };
    const [mode, size, nameSize] = [number(1), number(6), number(11)];
    const nameStart = offset + 110;
    const path = archive.toString("utf8", nameStart, nameStart + nameSize - 1);
    const start = (nameStart + nameSize + 3) & ~3;
    if (path === "TRAILER!!!") return members;
    members.push({ path, mode, content: archive.toString("utf8", start, start + size) });
    offset = (start + size + 3) & ~3;
  }
}

describe("packCpio", () => {
  it("keeps every path and content", () => {
    const path = fc.stringMatching(/^[a-z]{1,9}$/);
    fc.assert(
      fc.property(fc.array(fc.record({ path, content: fc.string() })), (files) => {
        const entries = files.map((file) => ({ ...file, kind: "file" as const, mode: 0o644 }));
        const unpacked = unpackCpio(packCpio(entries));
        expect(unpacked.map(({ path, content }) => ({ path, content }))).toEqual(files);
      }),
    );
  });

  it("tells files, directories and links apart", () => {
    const archive = packCpio([
      { path: "d", kind: "directory", mode: 0o755 },
      { path: "d/f", kind: "file", mode: 0o600, content: "text" },
      { path: "l", kind: "link", target: "d/f" },
    ]);
    expect(unpackCpio(archive)).toEqual([
      { path: "d", mode: 0o040755, content: "" },
      { path: "d/f", mode: 0o100600, content: "text" },
      { path: "l", mode: 0o120777, content: "d/f" },
    ]);
  });
});

describe("kernel modules", () => {
  it("are read for what they need", () => {
    expect(
      parseDepends(Buffer.from("\0license=GPL\0depends=net-failover,virtio\0name=virtio_net\0")),
    ).toEqual(["net_failover", "virtio"]);
    expect(parseDepends(Buffer.from("\0depends=\0"))).toEqual([]);
    expect(parseDepends(Buffer.from("no module"))).toEqual([]);
  });

  it("are loaded after all they need, each once, without those built in", () => {
    const name = fc.constantFrom("a", "b", "c", "d", "e", "f");
    const graph = fc.dictionary(name, fc.array(name), { maxKeys: 6, noNullPrototype: true });
    fc.assert(
      fc.property(graph, fc.array(name), (edges, wanted) => {
        // Only names further back in the alphabet: modules have no cycles.
        const depends = new Map(
          Object.entries(edges).map(([from, to]) => [from, to.filter((other) => other > from)]),
        );
        const order = loadOrder(wanted, depends);
        expect(new Set(order).size).toBe(order.length);
        for (const module of wanted) expect(order.includes(module)).toBe(depends.has(module));
        for (const [at, module] of order.entries()) {
          for (const needed of depends.get(module) ?? []) {
            expect(!depends.has(needed) || order.slice(0, at).includes(needed)).toBe(true);
          }
        }
      }),
    );
  });

  it("are collected from a tree", async () => {
    const dir = mkdtempSync(join(tmpdir(), "drover-modules-"));
    dirs.push(dir);
    writeFileSync(join(dir, "virtio_net.ko"), "\0depends=failover\0");
    writeFileSync(join(dir, "failover.ko"), "\0depends=\0");
    writeFileSync(join(dir, "unused.ko"), "\0depends=\0");
    const modules = await collectModules(dir, ["virtio-net", "virtio_pci"]);
    expect(modules.map((module) => module.name)).toEqual(["failover", "virtio_net"]);
    expect(modules[0]?.content).toEqual(readFileSync(join(dir, "failover.ko")));
  });
});

describe("rootFiles", () => {
  it("puts every parent before its children and names each path once", () => {
    const module = { name: "virtio_net", content: Buffer.from("x") };
    const cdrom = { name: "isofs", content: Buffer.from("x") };
    const paths = rootFiles({
      ...{ busybox: Buffer.from("b"), applets: ["sh", "busybox"], modules: [module] },
      cdromModules: [module, cdrom],
    }).map((entry) => entry.path);
    expect(new Set(paths).size).toBe(paths.length);
    for (const [at, path] of paths.entries()) {
      const parent = path.split("/").slice(0, -1).join("/");
      if (parent !== "") expect(paths.slice(0, at)).toContain(parent);
    }
    expect(paths).toEqual(expect.arrayContaining(["lib/modules/virtio_net.ko", "lib/modules/isofs.ko"]));
  });
});

describe("masterBootRecord", () => {
  it("holds boot code, one active Linux partition and the signature", () => {
    const sector = masterBootRecord(Buffer.alloc(512, 0xaa), { first: 2048, count: 1000 });
    expect(sector).toHaveLength(512);
    expect(sector.subarray(0, 440)).toEqual(Buffer.alloc(440, 0xaa));
    expect(sector.subarray(440, 446)).toEqual(Buffer.alloc(6));
    expect([sector[446], sector[450]]).toEqual([0x80, 0x83]);
    expect([sector.readUInt32LE(454), sector.readUInt32LE(458)]).toEqual([2048, 1000]);
    expect(sector.subarray(462, 510)).toEqual(Buffer.alloc(48));
    expect(sector.readUInt16LE(510)).toBe(0xaa55);
  });
});
