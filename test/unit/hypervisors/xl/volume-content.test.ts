import { createHash, randomBytes } from "node:crypto";
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { beforeEach, describe, expect, it } from "vitest";
import type { VolumeAbility } from "../../../../src/hypervisors/hypervisor.ts";
import { volumeAbility } from "../../../../src/hypervisors/xl/volumes.ts";
import { temporaryDirectory } from "../../../fixtures/temporary-directory.ts";
import { call, LocalHost } from "./local-host.ts";

const MIB = 2 ** 20;
const POOL = "p";

let directory: string;
let volumes: VolumeAbility;

beforeEach(async () => {
  directory = await temporaryDirectory();
  volumes = volumeAbility(new LocalHost(), [{ name: POOL, path: directory }]);
});

const ref = (name: string) => ({ pool: POOL, name });
const file = (name: string): Promise<Buffer> => readFile(join(directory, name));
const digest = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

async function* once(content: Buffer): AsyncGenerator<Uint8Array> {
  yield content;
}

async function filled(name: string, content: Buffer): Promise<void> {
  await volumes.createVolume({ ...ref(name), format: "raw", capacityBytes: content.length }, call);
  await volumes.uploadVolume(ref(name), once(content), content.length, call);
}

describe("a copy", () => {
  it("is a file of its own, with zeros behind what it was made of, and nothing is left beside it", async () => {
    const content = randomBytes(MIB);
    await filled("base.raw", content);
    await volumes.copyVolume(
      { ...ref("a.raw"), format: "raw", capacityBytes: 2 * MIB },
      ref("base.raw"),
      call,
    );
    expect((await file("a.raw")).equals(Buffer.concat([content, Buffer.alloc(MIB)]))).toBe(true);
    expect((await stat(join(directory, "a.raw"))).mode & 0o777).toBe(0o600);
    expect((await readdir(directory)).sort()).toEqual(["a.raw", "base.raw"]);
  });

  it("keeps holes as holes", async () => {
    await volumes.createVolume({ ...ref("base.raw"), format: "raw", capacityBytes: 64 * MIB }, call);
    const made = await volumes.copyVolume(
      { ...ref("a.raw"), format: "raw", capacityBytes: MIB },
      ref("base.raw"),
      call,
    );
    expect(made).toMatchObject({ capacityBytes: 64 * MIB });
    expect(made.allocationBytes).toBeLessThan(MIB);
  });

  it("of a qcow2 is grown as one", async () => {
    await volumes.createVolume({ ...ref("base.qcow2"), format: "qcow2", capacityBytes: MIB }, call);
    const spec = { ...ref("a.qcow2"), format: "qcow2", capacityBytes: 3 * MIB } as const;
    expect(await volumes.copyVolume(spec, ref("base.qcow2"), call)).toMatchObject({ capacityBytes: 3 * MIB });
    await execa("qemu-img", ["check", join(directory, "a.qcow2")]);
    expect(await volumes.observeVolume(ref("base.qcow2"), call)).toMatchObject({ capacityBytes: MIB });
  });

  it("of a qcow2 that names other files is refused: they would be read on the host", async () => {
    await execa("qemu-img", ["create", "-f", "raw", join(directory, "secret"), "1M"]);
    const backed = ["create", "-f", "qcow2", "-F", "raw", "-b", join(directory, "secret")];
    await execa("qemu-img", [...backed, join(directory, "base.qcow2")]);
    const spec = { ...ref("a.qcow2"), format: "qcow2", capacityBytes: 3 * MIB } as const;
    await expect(volumes.copyVolume(spec, ref("base.qcow2"), call)).rejects.toMatchObject({
      reason: "invalid-state",
    });
    expect(await volumes.observeVolume(spec, call)).toBeNull();
  });
});

describe("content in parts", () => {
  const send = async (content: Buffer, offsetBytes: number, sizeBytes: number): Promise<void> => {
    const part = content.subarray(offsetBytes, offsetBytes + sizeBytes);
    await volumes.uploadPart?.(ref("a.raw"), once(part), { offsetBytes, sizeBytes }, call);
  };

  it("is put together, whatever an earlier, broken-off part left behind its beginning", async () => {
    const content = Buffer.concat([randomBytes(MIB), Buffer.alloc(MIB), randomBytes(17)]);
    await volumes.createVolume({ ...ref("a.raw"), format: "raw", capacityBytes: content.length }, call);
    await send(content, 0, MIB);
    await writeFile(
      join(directory, "a.raw"),
      Buffer.concat([content.subarray(0, MIB), randomBytes(MIB + 17)]),
    );
    await send(content, MIB, MIB);
    await send(content, 2 * MIB, 17);
    expect((await file("a.raw")).equals(content)).toBe(true);
  });

  it("is refused where the parts before it are not there", async () => {
    await volumes.createVolume({ ...ref("a.qcow2"), format: "qcow2", capacityBytes: MIB }, call);
    const part = { offsetBytes: 2 * MIB, sizeBytes: 9 };
    await expect(
      volumes.uploadPart?.(ref("a.qcow2"), once(Buffer.alloc(9)), part, call),
    ).rejects.toMatchObject({ reason: "failed" });
  });
});

it("the digest is of the file's first bytes", async () => {
  const content = randomBytes(MIB);
  await filled("a.raw", content);
  expect(await volumes.digestVolume?.(ref("a.raw"), 1000, call)).toBe(digest(content.subarray(0, 1000)));
  await expect(volumes.digestVolume?.(ref("a.raw"), 2 * MIB, call)).rejects.toMatchObject({
    reason: "failed",
  });
});
