import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { HypervisorError, type VolumeAbility } from "../../../../src/hypervisors/hypervisor.ts";
import { volumeAbility } from "../../../../src/hypervisors/xl/volumes.ts";
import { temporaryDirectory } from "../../../fixtures/temporary-directory.ts";
import { call, LocalHost } from "./local-host.ts";

const MIB = 2 ** 20;
const POOL = "p";

let directory: string;
let host: LocalHost;
let volumes: VolumeAbility;

beforeEach(async () => {
  directory = await temporaryDirectory();
  host = new LocalHost();
  volumes = volumeAbility(host, [
    { name: POOL, path: directory },
    { name: "unmounted", path: join(directory, "not-there") },
  ]);
});

const ref = (name = "a.img") => ({ pool: POOL, name });

async function create(name = "a.img", capacityBytes = MIB, format: "raw" | "qcow2" = "raw") {
  return await volumes.createVolume({ ...ref(name), format, capacityBytes }, call);
}

async function upload(content: Buffer, sizeBytes = content.length, name = "a.img"): Promise<void> {
  await volumes.uploadVolume(ref(name), chunks(content), sizeBytes, call);
}

async function* chunks(content: Buffer): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < content.length; at += 100_000) yield content.subarray(at, at + 100_000);
}

const file = (name = "a.img"): Promise<Buffer> => readFile(join(directory, name));
const digest = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
const info = async (name: string): Promise<unknown> =>
  JSON.parse((await execa("qemu-img", ["info", "--output=json", join(directory, name)])).stdout);

describe("a volume", () => {
  it("that is not there is none", async () => {
    expect(await volumes.observeVolume(ref(), call)).toBeNull();
  });

  it("that is raw is a file with nothing in it, for its owner alone", async () => {
    const path = join(directory, "a.img");
    const expected = { pool: POOL, name: "a.img", path, capacityBytes: MIB + 1, allocationBytes: 0 };
    expect(await create("a.img", MIB + 1)).toEqual(expected);
    expect(await volumes.observeVolume(ref(), call)).toEqual(expected);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect(host.locks).toEqual([path]);
  });

  it("that is qcow2 is one that QEMU reads, as large as it was asked for", async () => {
    expect(await create("a.qcow2", 5 * MIB, "qcow2")).toMatchObject({ capacityBytes: 5 * MIB });
    expect(await info("a.qcow2")).toMatchObject({
      format: "qcow2",
      "virtual-size": 5 * MIB,
      "format-specific": { data: { compat: "1.1" } },
    });
  });

  it("that is there already is left as it is, though another makes it in the meantime", async () => {
    await create();
    expect(await create("a.img", 2 * MIB)).toMatchObject({ capacityBytes: MIB });
    const racing = new LocalHost();
    racing.read = async (argv, with_) => {
      const seen = await host.read(argv, with_);
      await create("b.img", 3 * MIB);
      return seen;
    };
    const other = volumeAbility(racing, [{ name: POOL, path: directory }]);
    await expect(
      other.createVolume({ ...ref("b.img"), format: "raw", capacityBytes: MIB }, call),
    ).resolves.toMatchObject({ capacityBytes: 3 * MIB });
  });

  it("whose making was broken off is made from the beginning", async () => {
    await writeFile(join(directory, ".a.img.part"), "half");
    expect(await volumes.observeVolume(ref(), call)).toBeNull();
    expect(await create()).toMatchObject({ capacityBytes: MIB, allocationBytes: 0 });
    expect(await readdir(directory)).toEqual(["a.img"]);
  });

  it("is deleted with what was left beside it, and again", async () => {
    await create();
    await writeFile(join(directory, ".a.img.part"), "half");
    await volumes.deleteVolume(ref(), call);
    await volumes.deleteVolume(ref(), call);
    expect(await readdir(directory)).toEqual([]);
  });

  it.each(["raw", "qcow2"] as const)("that is %s grows, and never shrinks", async (format) => {
    await create("a", MIB, format);
    const capacityAfter = async (capacityBytes: number): Promise<number | undefined> => {
      await volumes.growVolume(ref("a"), capacityBytes, call);
      return (await volumes.observeVolume(ref("a"), call))?.capacityBytes;
    };
    expect(await capacityAfter(3 * MIB)).toBe(3 * MIB);
    expect(await capacityAfter(3 * MIB)).toBe(3 * MIB);
    expect(await capacityAfter(2 * MIB)).toBe(3 * MIB);
  });

  it("that names another file is not grown, for QEMU would open that file", async () => {
    const secret = join(directory, "secret");
    await writeFile(secret, Buffer.alloc(MIB));
    const args = ["create", "-q", "-f", "qcow2", "-o"];
    await execa("qemu-img", [...args, `data_file=${secret}`, join(directory, "data"), "1M"]);
    await execa("qemu-img", [...args, `backing_file=${secret},backing_fmt=raw`, join(directory, "backed")]);
    for (const name of ["data", "backed"]) {
      await expect(volumes.growVolume(ref(name), 9 * MIB, call)).rejects.toMatchObject({
        reason: "invalid-state",
      });
    }
    expect((await stat(secret)).size).toBe(MIB);
  });

  it("is never a link or a directory", async () => {
    await symlink("/etc/passwd", join(directory, "link"));
    await mkdir(join(directory, "sub"));
    expect(await volumes.observeVolume(ref("link"), call)).toBeNull();
    expect(await volumes.listVolumes(POOL, "", call)).toEqual([]);
    await expect(volumes.deleteVolume(ref("sub"), call)).rejects.toMatchObject({ name: "HypervisorError" });
  });

  it.each(["../x", ".hidden", "-rf", "a b", ""])("is never called %j", async (name) => {
    await expect(volumes.observeVolume(ref(name), call)).rejects.toMatchObject({ reason: "invalid-spec" });
    await expect(create(name)).rejects.toMatchObject({ reason: "invalid-spec" });
    await expect(volumes.deleteVolume(ref(name), call)).rejects.toMatchObject({ reason: "invalid-spec" });
  });
});

describe("volumes of a pool", () => {
  it("are listed by the beginning of their names, other files left out", async () => {
    await create("vm-1-root");
    await create("vm-1-data", 2 * MIB, "qcow2");
    await create("vm-2-root");
    await writeFile(join(directory, "vm-1 with blanks"), "");
    await writeFile(join(directory, "vm-1\nline"), "");
    await writeFile(join(directory, ".vm-1-root.part"), "");
    const listed = await volumes.listVolumes(POOL, "vm-1", call);
    expect(listed.map(({ name, capacityBytes }) => [name, capacityBytes])).toEqual([
      ["vm-1-data", 2 * MIB],
      ["vm-1-root", MIB],
    ]);
    expect(await volumes.listVolumes(POOL, "", call)).toHaveLength(3);
  });

  it("are not found by what a shell would make of a name", async () => {
    await create("a");
    for (const prefix of ["*", "?", "[a]", "$(echo a)", "a*", "./", "../"]) {
      expect(await volumes.listVolumes(POOL, prefix, call)).toEqual([]);
    }
  });

  it("that the URI does not name, or whose directory is not there, are not found", async () => {
    await expect(volumes.listVolumes("other", "", call)).rejects.toThrow(
      "names no pool 'other', but p, unmounted",
    );
    const lost = { pool: "unmounted", name: "a" };
    const asked = [
      () => volumes.listVolumes("unmounted", "", call),
      () => volumes.observeVolume(lost, call),
      () => volumes.createVolume({ ...lost, format: "raw", capacityBytes: 1 }, call),
    ];
    for (const ask of asked) {
      await expect(ask()).rejects.toMatchObject({ reason: "not-found" });
      await expect(ask()).rejects.toThrow("make or mount");
    }
  });

  it("are not changed without the right to do so", async () => {
    await create();
    const refusal = new Error("the lease is over");
    const refused = {
      ...call,
      beforeSend: () => {
        throw refusal;
      },
    };
    await expect(
      volumes.createVolume({ ...ref("b"), format: "raw", capacityBytes: 1 }, refused),
    ).rejects.toBe(refusal);
    await expect(volumes.growVolume(ref(), 2 * MIB, refused)).rejects.toBe(refusal);
    await expect(volumes.uploadVolume(ref(), chunks(Buffer.alloc(9)), 9, refused)).rejects.toBe(refusal);
    await expect(volumes.deleteVolume(ref(), refused)).rejects.toBe(refusal);
    expect(await readdir(directory)).toEqual(["a.img"]);
  });
});

describe("an upload", () => {
  it("is written from the beginning, and the disk stays as large as it was", async () => {
    await create("a.img", 4 * MIB);
    for (const content of [randomBytes(3 * MIB + 17), randomBytes(3 * MIB + 17)]) {
      await upload(content);
      const found = await file();
      expect(digest(found.subarray(0, content.length))).toBe(digest(content));
      expect(found.subarray(content.length).every((byte) => byte === 0)).toBe(true);
    }
    const observed = await volumes.observeVolume(ref(), call);
    expect(observed?.capacityBytes).toBe(4 * MIB);
    expect(observed?.allocationBytes).toBeGreaterThanOrEqual(3 * MIB);
    expect((await stat(join(directory, "a.img"))).mode & 0o777).toBe(0o600);
    expect(await readdir(directory)).toEqual(["a.img"]);
  });

  it("of zeros takes no room, at its end neither", async () => {
    await create("a.img", MIB);
    const content = Buffer.concat([randomBytes(MIB), Buffer.alloc(6 * MIB)]);
    await upload(content);
    expect(digest(await file())).toBe(digest(content));
    expect((await volumes.observeVolume(ref(), call))?.allocationBytes).toBeLessThan(2 * MIB);
  });

  it("of nothing is fine", async () => {
    await create("a.img", 10);
    await upload(Buffer.alloc(0));
    expect(await file()).toEqual(Buffer.alloc(10));
  });

  it("of a qcow2 takes the place of the empty one", async () => {
    await create("a.qcow2", 64 * MIB, "qcow2");
    const image = join(await temporaryDirectory(), "image");
    await execa("qemu-img", ["create", "-q", "-f", "qcow2", image, "8M"]);
    const content = await readFile(image);
    await upload(content, content.length, "a.qcow2");
    expect(digest(await file("a.qcow2"))).toBe(digest(content));
    expect(await volumes.observeVolume(ref("a.qcow2"), call)).toMatchObject({ capacityBytes: 8 * MIB });
  });

  it("into a volume that is not there is refused", async () => {
    await expect(upload(Buffer.alloc(9))).rejects.toMatchObject({ reason: "not-found" });
    await create();
    const gone = new LocalHost();
    gone.read = async (argv, with_) => {
      const seen = await host.read(argv, with_);
      await volumes.deleteVolume(ref(), call);
      return seen;
    };
    const other = volumeAbility(gone, [{ name: POOL, path: directory }]);
    await expect(other.uploadVolume(ref(), chunks(Buffer.alloc(9)), 9, call)).rejects.toMatchObject({
      reason: "not-found",
    });
    expect(await readdir(directory)).toEqual([]);
  });

  /** The volume as it was before, and nothing beside it. */
  async function expectUntouched(content: Buffer): Promise<void> {
    expect(digest(await file())).toBe(digest(content));
    expect(await readdir(directory)).toEqual(["a.img"]);
  }

  async function uploaded(): Promise<Buffer> {
    const content = randomBytes(MIB);
    await create();
    await upload(content);
    return content;
  }

  it.each([1, -1])("that gives another amount than announced (by %i) changes nothing", async (more) => {
    const before = await uploaded();
    const content = randomBytes(MIB / 2);
    await expect(upload(content, content.length + more)).rejects.toMatchObject({ reason: "invalid-spec" });
    await expectUntouched(before);
  });

  it("that the host got cut off changes nothing, though nobody here noticed", async () => {
    const before = await uploaded();
    const cutting = new LocalHost();
    cutting.change = (argv, with_, { input, ...options }) =>
      host.change(argv, with_, { ...options, input: firstOf(input) });
    const other = volumeAbility(cutting, [{ name: POOL, path: directory }]);
    const sent = other.uploadVolume(ref(), chunks(randomBytes(MIB / 2)), MIB / 2, call);
    await expect(sent).rejects.toMatchObject({ name: "HypervisorError", reason: "failed" });
    await expect(sent).rejects.toThrow("cut off");
    await expectUntouched(before);
  });

  it("whose source fails rejects with its error and changes nothing", async () => {
    const before = await uploaded();
    const broken = (async function* () {
      yield randomBytes(1000);
      throw new Error("the source broke");
    })();
    await expect(volumes.uploadVolume(ref(), broken, MIB, call)).rejects.toThrow("the source broke");
    await expectUntouched(before);
  });

  it("that is given up rejects though its source stalls, and changes nothing", async () => {
    const before = await uploaded();
    const stop = new AbortController();
    const stalled = (async function* () {
      yield randomBytes(1000);
      stop.abort();
      await new Promise(() => undefined);
    })();
    const sent = volumes.uploadVolume(ref(), stalled, MIB, { ...call, signal: stop.signal });
    await expect(sent).rejects.toMatchObject({ name: "HypervisorError", reason: "aborted" });
    await expectUntouched(before);
  });

  it("that ends for another reason while it is given up tells that reason", async () => {
    await create();
    const stop = new AbortController();
    const lost = new HypervisorError("unreachable", "the connection broke");
    const breaking = new LocalHost();
    breaking.change = () => {
      stop.abort();
      return Promise.reject(lost);
    };
    const other = volumeAbility(breaking, [{ name: POOL, path: directory }]);
    const sent = other.uploadVolume(ref(), chunks(Buffer.alloc(9)), 9, { ...call, signal: stop.signal });
    await expect(sent).rejects.toBe(lost);
  });

  it("that was broken off for good leaves nothing in the way of the next", async () => {
    await create();
    await writeFile(join(directory, ".a.img.part"), randomBytes(3 * MIB));
    const content = randomBytes(MIB);
    await upload(content);
    await expectUntouched(content);
  });
});

/** What comes first of an input, as when the connection breaks behind it. */
async function* firstOf(input: AsyncIterable<Uint8Array> | string | undefined): AsyncGenerator<Uint8Array> {
  if (input === undefined || typeof input === "string") throw new Error("an upload's input is a source");
  for await (const chunk of input) {
    yield chunk;
    return;
  }
}

describe("a pool that is full", () => {
  /** A pool of 2 MiB in a namespace of its own, and what enters that namespace. */
  async function smallPool(): Promise<{ readonly path: string; readonly around: readonly string[] }> {
    const path = await temporaryDirectory();
    const holder = spawn(
      "unshare",
      [
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs -o size=2m pool "$0" && echo up && cat',
        path,
      ],
      { stdio: ["pipe", "pipe", "inherit"] },
    );
    onTestFinished(async () => {
      const ended = once(holder, "close");
      holder.stdin.end();
      await ended;
    });
    await once(holder.stdout, "data");
    const target = ["--target", String(holder.pid), "--user", "--preserve-credentials", "--mount"];
    return { path, around: ["nsenter", ...target] };
  }

  it("refuses what does not fit, and keeps what it had", async () => {
    const { path, around } = await smallPool();
    const inside = new LocalHost(around);
    const small = volumeAbility(inside, [{ name: POOL, path }]);
    await small.createVolume({ ...ref(), format: "raw", capacityBytes: 8 * MIB }, call);
    const first = randomBytes(MIB / 2);
    await small.uploadVolume(ref(), chunks(first), first.length, call);
    const sent = small.uploadVolume(ref(), chunks(randomBytes(4 * MIB)), 4 * MIB, call);
    await expect(sent).rejects.toMatchObject({ reason: "storage-full" });
    const found = await inside.readBytes(["head", "-c", String(first.length), join(path, "a.img")], call);
    expect(digest(found.stdout)).toBe(digest(first));
    expect((await inside.read(["ls", "-A", path], call)).stdout).toBe("a.img\n");
  });
});

it("what the host cannot do is told in its words", async () => {
  const failing = new LocalHost();
  failing.change = async () => ({
    exitCode: 1,
    stdout: "",
    stderr: "qemu-img: a.qcow2: Could not create 'a.qcow2': Read-only file system\n",
  });
  const other = volumeAbility(failing, [{ name: POOL, path: directory }]);
  const made = other.createVolume({ ...ref(), format: "qcow2", capacityBytes: MIB }, call);
  await expect(made).rejects.toBeInstanceOf(HypervisorError);
  await expect(made).rejects.toThrow("creating volume 'a.img' failed: qemu-img: a.qcow2: Could not create");
});
