import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { describe, expect, it, onTestFinished } from "vitest";
import { withFileLock } from "../../src/setup/file-lock.mjs";
import { sourcesFor } from "../../src/setup/xen-host/debian-mirrors.mjs";
import { dom0Files } from "../../src/setup/xen-host/dom0-files.mjs";
import { dom0InitrdFiles } from "../../src/setup/xen-host/dom0-initrd.mjs";
import { xenVersionOf } from "../../src/setup/xen-host/flavours.mjs";
import { connectQmp } from "../../src/setup/xen-host/qmp.mjs";
import { payloadOf } from "../../src/setup/xen-host/vmlinux.mjs";

describe("xenVersionOf", () => {
  it("has a default and refuses what cannot be built", () => {
    expect([undefined, "", "4.17", "4.20"].map(xenVersionOf)).toEqual(["4.17", "4.17", "4.17", "4.20"]);
    expect(() => xenVersionOf("4.2")).toThrow("set DROVER_TEST_XEN to 4.17 or 4.20");
  });
});

describe("sourcesFor", () => {
  it("takes the mirrors of the machine's own apt, those of the release first", () => {
    const targets = [
      "https://other.example/tools stable",
      "http://mirror.example/debian/ bookworm",
      "http://new.example/debian/ trixie",
      "http://mirror.example/debian-security/ bookworm-security",
    ].join("\n");
    expect(sourcesFor(targets, "trixie")).toEqual([
      "deb http://new.example/debian trixie main",
      "deb http://new.example/debian trixie-updates main",
      "deb http://mirror.example/debian-security trixie-security main",
    ]);
    expect(sourcesFor(targets, "bookworm")[0]).toBe("deb http://mirror.example/debian bookworm main");
  });

  it("knows the public ones where the machine has none of Debian", () => {
    expect(sourcesFor("http://archive.ubuntu.com/ubuntu/ noble\n", "bookworm")).toEqual([
      "deb http://deb.debian.org/debian bookworm main",
      "deb http://deb.debian.org/debian bookworm-updates main",
      "deb http://deb.debian.org/debian-security bookworm-security main",
    ]);
  });
});

describe("payloadOf", () => {
  it("finds the packed kernel wherever the header says it is", () => {
    const parts = fc.record({
      setupSectors: fc.integer({ min: 1, max: 8 }),
      gap: fc.integer({ min: 0, max: 300 }),
      payload: fc.uint8Array({ minLength: 1, maxLength: 100 }),
    });
    fc.assert(
      fc.property(parts, ({ setupSectors, gap, payload }) => {
        const image = Buffer.alloc((setupSectors + 1) * 512 + gap + payload.length + 9, 0xee);
        image[0x1f1] = setupSectors;
        image.write("HdrS", 0x202);
        image.writeUInt32LE(gap, 0x248);
        image.writeUInt32LE(payload.length, 0x24c);
        image.set(payload, (setupSectors + 1) * 512 + gap);
        expect(payloadOf(image)).toEqual(Buffer.from(payload));
      }),
    );
  });

  it("refuses what is no kernel", () => {
    expect(() => payloadOf(Buffer.from("\x7fELF"))).toThrow("no Linux kernel");
    expect(() => payloadOf(Buffer.alloc(4096))).toThrow("no Linux kernel");
  });
});

describe("dom0", () => {
  it("has each file once, and its secrets for root only", () => {
    const hostKey = { private: "PRIVATE", public: "PUBLIC" };
    const files = dom0Files({ authorizedKey: "AUTHORIZED", hostKey, machineId: "0".repeat(32) });
    expect(new Set(files.map(({ path }) => path)).size).toBe(files.length);
    expect(files.filter(({ content }) => content === "PRIVATE").map(({ mode }) => mode)).toEqual([0o600]);
    expect(files.find(({ content }) => content === "AUTHORIZED")?.path).toBe("root/.ssh/authorized_keys");
  });

  it("keeps Debian's limits on ssh sessions", () => {
    const hostKey = { private: "", public: "" };
    const text = dom0Files({ authorizedKey: "", hostKey, machineId: "" }).map(({ content }) => content);
    expect(text.join("")).not.toMatch(/MaxSessions|MaxStartups/);
  });

  it("boots from an archive whose parents come before their children", () => {
    const modules = [{ name: "ext4", content: Buffer.from("x") }];
    const paths = dom0InitrdFiles({ busybox: Buffer.from("b"), modules }).map(({ path }) => path);
    expect(new Set(paths).size).toBe(paths.length);
    for (const [at, path] of paths.entries()) {
      const parent = path.split("/").slice(0, -1).join("/");
      if (parent !== "") expect(paths.slice(0, at)).toContain(parent);
    }
  });
});

describe("connectQmp", () => {
  /** A QEMU that answers each command by a function. */
  function fakeQemu(answer: (name: string) => object): {
    qmp: ReturnType<typeof connectQmp>;
    end: () => void;
  } {
    const [output, input] = [new PassThrough(), new PassThrough()];
    input.setEncoding("utf8").on("data", (text: string) => {
      for (const line of text.split("\n").filter(Boolean)) {
        const { execute } = JSON.parse(line) as { execute: string };
        output.write(`${JSON.stringify({ event: "NOISE" })}\n${JSON.stringify(answer(execute))}\n`);
      }
    });
    output.write(`${JSON.stringify({ QMP: {} })}\n`);
    return { qmp: connectQmp(output, input), end: () => output.end() };
  }

  it("gives each command its own answer, past greeting and events", async () => {
    const { qmp } = fakeQemu((name) => ({ return: { name } }));
    const answers = await Promise.all(["one", "two", "three"].map((name) => qmp.execute(name)));
    expect(answers).toEqual([{ name: "one" }, { name: "two" }, { name: "three" }]);
  });

  it("rejects with what QEMU says, and goes on", async () => {
    const { qmp } = fakeQemu((name) =>
      name === "bad" ? { error: { desc: "no such thing" } } : { return: 7 },
    );
    await expect(qmp.execute("bad")).rejects.toThrow("QEMU: no such thing");
    expect(await qmp.execute("good")).toBe(7);
  });

  it("rejects what waits when QEMU ends, and what comes later", async () => {
    const { qmp, end } = fakeQemu((name) => (name === "wait" ? { event: "NONE" } : { return: {} }));
    const waiting = qmp.execute("wait");
    const outcome = expect(waiting).rejects.toThrow("QEMU has ended");
    await sleep(10);
    end();
    await outcome;
    await expect(qmp.execute("later")).rejects.toThrow("QEMU has ended");
  });
});

describe("withFileLock", () => {
  it("lets one in at a time, and the next when the action fails", async () => {
    const dir = mkdtempSync(join(tmpdir(), "drover-lock-"));
    onTestFinished(() => {
      rmSync(dir, { recursive: true });
    });
    const path = join(dir, "a lock");
    let inside = 0;
    const enter = async (): Promise<number> => {
      inside += 1;
      const seen = inside;
      await sleep(20);
      inside -= 1;
      if (seen > 1) throw new Error("two at once");
      return seen;
    };
    await expect(withFileLock(path, () => Promise.reject(new Error("mine")))).rejects.toThrow("mine");
    expect(await Promise.all([1, 2, 3].map(() => withFileLock(path, enter)))).toEqual([1, 1, 1]);
    expect(readFileSync(path, "utf8")).toBe("");
    await expect(withFileLock(join(dir, "no/such"), enter)).rejects.toThrow("cannot lock");
  });
});
