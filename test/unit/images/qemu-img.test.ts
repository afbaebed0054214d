import { chmod, writeFile } from "node:fs/promises";
import path from "node:path";
import { execa } from "execa";
import { describe, expect, it } from "vitest";
import { parseQcow2Header } from "../../../src/images/qcow2-header.ts";
import { askQemuImg, judgeInfo } from "../../../src/images/qemu-img.ts";
import { temporaryDirectory } from "../../fixtures/temporary-directory.ts";
import { qcow2File } from "./qcow2-sample.ts";

const info = { format: "qcow2", "virtual-size": 1024, "format-specific": { type: "qcow2", data: {} } };

describe("judgeInfo", () => {
  it("agrees with a plain image", () => {
    expect(judgeInfo(JSON.stringify(info), 1024)).toEqual({ kind: "agrees" });
  });

  it.each([
    ["another format", { format: "raw" }, /a format of raw/],
    ["another virtual size", { "virtual-size": 2048 }, /2048 bytes/],
    ["a backing file", { "backing-filename": "/etc/shadow" }, /backing file/],
    ["a data file", { "format-specific": { data: { "data-file": "x" } } }, /external data file/],
    ["encryption", { encrypted: true }, /encryption/],
  ])("objects to %s", (_what, change, reason) => {
    const opinion = judgeInfo(JSON.stringify({ ...info, ...change }), 1024);
    expect(opinion).toMatchObject({ kind: "objects", reason: expect.stringMatching(reason) as string });
  });

  it.each(["", "not json", "[]", '{"format":"qcow2"}'])(
    "objects to an answer that says nothing: %j",
    (output) => {
      expect(judgeInfo(output, 1024)).toMatchObject({ kind: "objects" });
    },
  );
});

/** A program in the place of qemu-img. */
async function standIn(script: string): Promise<string> {
  const program = path.join(await temporaryDirectory(), "qemu-img");
  await writeFile(program, `#!/bin/sh\n${script}\n`);
  await chmod(program, 0o755);
  return program;
}

describe("askQemuImg", () => {
  it("is content where there is none", async () => {
    expect(await askQemuImg("/nonexistent/qemu-img", "/tmp/x", 1)).toEqual({ kind: "absent" });
  });

  it("hands the file over so that no part of it is an option or a protocol, and no environment", async () => {
    const directory = await temporaryDirectory();
    const program = await standIn(
      `printf '%s\\n' "$@" > ${directory}/args; env > ${directory}/env; echo '${JSON.stringify(info)}'`,
    );
    expect(await askQemuImg(program, "/images/-o json:{}", 1024)).toEqual({ kind: "agrees" });
    const args = (await execa("cat", [`${directory}/args`])).stdout.split("\n");
    expect(args).toEqual([
      "info",
      "--output=json",
      "--force-share",
      "-f",
      "qcow2",
      "file:/images/-o json:{}",
    ]);
    const names = (await execa("cat", [`${directory}/env`])).stdout
      .split("\n")
      .map((line) => line.split("=")[0]);
    expect(names).not.toContain("HOME");
  });

  it("passes on what it says, without paths of this machine", async () => {
    const program = await standIn(
      `echo "qemu-img: Could not open 'file:/secret/x': Image is corrupt" >&2; exit 1`,
    );
    expect(await askQemuImg(program, "/secret/x", 1)).toEqual({
      kind: "objects",
      reason: "QEMU cannot open the image: Could not open 'the image': Image is corrupt",
    });
  });
});

const installed = await execa("qemu-img", ["--version"], { reject: false }).then(
  (result) => !result.failed,
  () => false,
);

describe.runIf(installed)("the header parser and QEMU itself", () => {
  it.each([
    [],
    ["-o", "compat=0.10"],
    ["-o", "cluster_size=512"],
    ["-o", "cluster_size=2M"],
    ["-o", "extended_l2=on,cluster_size=128k"],
    ["-o", "lazy_refcounts=on"],
    ["-o", "refcount_bits=1"],
  ])("agree about images made with %s %s", async (...options) => {
    const file = path.join(await temporaryDirectory(), "x.qcow2");
    await execa("qemu-img", ["create", "-q", "-f", "qcow2", ...options, file, "3G"]);
    const { stdout } = await execa("head", ["-c", "65536", file], { encoding: "buffer" });
    const result = parseQcow2Header(stdout);
    expect(result).toMatchObject({ kind: "header", header: { virtualSizeBytes: 3 * 2 ** 30 } });
    expect(await askQemuImg("qemu-img", file, 3 * 2 ** 30)).toEqual({ kind: "agrees" });
  });

  it("agree about a sample made by hand", async () => {
    const file = path.join(await temporaryDirectory(), "x.qcow2");
    await writeFile(file, qcow2File());
    expect(await askQemuImg("qemu-img", file, 10 * 2 ** 30)).toEqual({ kind: "agrees" });
  });

  it("agree that a backing file and an external data file are there", async () => {
    const directory = await temporaryDirectory();
    const make = (...args: string[]) =>
      execa("qemu-img", ["create", "-q", "-f", "qcow2", ...args], { cwd: directory });
    await make("base.qcow2", "1G");
    await make("-b", "base.qcow2", "-F", "qcow2", "overlay.qcow2");
    await make("-o", "data_file=data.raw", "external.qcow2", "1G");
    for (const [name, reason] of [
      ["overlay.qcow2", /backing file/],
      ["external.qcow2", /external/],
    ] as const) {
      const file = path.join(directory, name);
      const { stdout } = await execa("head", ["-c", "65536", file], { encoding: "buffer" });
      expect(parseQcow2Header(stdout)).toMatchObject({
        kind: "refused",
        reason: expect.stringMatching(reason) as string,
      });
      expect(await askQemuImg("qemu-img", file, 2 ** 30)).toMatchObject({ kind: "objects" });
    }
  });
});
