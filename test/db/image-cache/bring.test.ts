import { createHash, randomBytes } from "node:crypto";
import { buffer } from "node:stream/consumers";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createDatabase, type Database } from "../../../src/db/client.ts";
import {
  type HostConnection,
  HypervisorError,
  type VolumeAbility,
} from "../../../src/hypervisors/hypervisor.ts";
import { bringHostImageKind, type HostImageInput } from "../../../src/image-cache/host-image-kinds.ts";
import { getHostImage } from "../../../src/image-cache/host-image-store.ts";
import { type HostId, type HostImageId, type ImageId, newId, type ProjectId } from "../../../src/lib/ids.ts";
import type { StepContext } from "../../../src/operations/operation-kind.ts";
import { createTestDatabase, type TestDatabase } from "../../fixtures/database.ts";
import { silentLog } from "../../fixtures/log.ts";

const PART_BYTES = 100;
const content = randomBytes(350);
const sha256 = createHash("sha256").update(content).digest("hex");

let database: TestDatabase;
let db: Database;
const hostId = newId<HostId>();
let id: HostImageId;

beforeAll(async () => {
  database = await createTestDatabase();
  db = createDatabase({ url: database.url, maxConnections: 4, logger: silentLog });
  const projectId = newId<ProjectId>();
  await db.project.create({ data: { id: projectId, name: "default" } });
  await db.host.create({
    data: { id: hostId, name: "h", uri: "sim+kvm://h", driver: "sim", hypervisor: "kvm" },
  });
  const facts = {
    kind: "disk",
    format: "raw",
    state: "ready",
    sha256,
    sizeBytes: 350,
    virtualSizeBytes: 350,
  };
  await db.image.create({ data: { id: newId<ImageId>(), projectId, name: "i", ...facts } });
});
afterAll(async () => {
  await db.close();
  await database.drop();
});
beforeEach(async () => {
  await db.hostImage.deleteMany();
  id = newId<HostImageId>();
  const place = { id, hostId, pool: "p", name: `drover-image-${sha256}.raw`, state: "filling" };
  await db.hostImage.create({
    data: { ...place, sha256, format: "raw", sizeBytes: content.length, capacityBytes: content.length },
  });
});

/** A pool of one volume, kept here; `parts` counts what was sent to it, by where it began. */
class Pool {
  volume: Buffer | null = null;
  readonly parts: number[] = [];
  /** The upload that breaks off after ten bytes. */
  breaksAt: number | null = null;
  readonly volumes: VolumeAbility;

  constructor({ resumes }: { readonly resumes: boolean }) {
    const seen = () => {
      if (this.volume === null) return null;
      const { length } = this.volume;
      return { pool: "p", name: "v", path: "/p/v", capacityBytes: length, allocationBytes: length };
    };
    const receive = async (at: number, source: AsyncIterable<Uint8Array>): Promise<void> => {
      this.parts.push(at);
      const bytes = await buffer(source);
      if (this.volume === null) throw new HypervisorError("not-found", "no volume");
      const breaks = this.breaksAt === this.parts.length;
      bytes.subarray(0, breaks ? 10 : bytes.length).copy(this.volume, at);
      if (breaks) throw new HypervisorError("unreachable", "the line broke");
    };
    this.volumes = {
      observeVolume: async () => seen(),
      createVolume: async ({ capacityBytes }) => {
        this.volume ??= Buffer.alloc(capacityBytes);
        return { pool: "p", name: "v", path: "/p/v", capacityBytes, allocationBytes: 0 };
      },
      uploadVolume: (_ref, source) => receive(0, source),
      growVolume: async () => undefined,
      deleteVolume: async () => {
        this.volume = null;
      },
      listVolumes: async () => [],
      copyVolume: () => Promise.reject(new Error("nothing is copied here")),
      ...(resumes ? { uploadPart: (_ref, source, { offsetBytes }) => receive(offsetBytes, source) } : {}),
    };
  }
}

async function run({ volumes }: Pool, source: Buffer = content): Promise<unknown> {
  const chunks = async function* (): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < source.length; at += 70) yield source.subarray(at, at + 70);
  };
  const facts = { sha256, sizeBytes: source.length, format: "raw", virtualSizeBytes: null } as const;
  const open = async () => ({ ...facts, content: chunks() });
  const images = { open, openRaw: open };
  const [step] = bringHostImageKind({ images, partBytes: PART_BYTES }).steps;
  const signal = new AbortController().signal;
  const context: StepContext<HostImageInput> = {
    operation: { id: newId(), kind: "hostImage.bring", projectId: null, input: { hostImageId: id } },
    ...{ signal, resumed: false, progress: () => undefined },
    call: { signal, timeoutMs: 1000, beforeSend: () => undefined },
    host: { volumes } as unknown as HostConnection,
    read: (work) => work(db),
    transaction: (work) => db.transaction(work),
  };
  return await step?.run({ ...context, found: null });
}

const filledBytes = async (): Promise<number | undefined> => (await getHostImage(db, id))?.filledBytes;

describe("bringing an image to a host", () => {
  it("sends it in parts, each of which counts once it has arrived", async () => {
    const pool = new Pool({ resumes: true });
    expect(await run(pool)).toEqual({ sizeBytes: 350, sentBytes: 350 });
    expect(pool.parts).toEqual([0, 100, 200, 300]);
    expect(pool.volume?.equals(content)).toBe(true);
    expect(await filledBytes()).toBe(350);
  });

  it("goes on where the last whole part ended, whoever takes it up", async () => {
    const pool = new Pool({ resumes: true });
    pool.breaksAt = 3;
    await expect(run(pool)).rejects.toThrow("the line broke");
    expect(await filledBytes()).toBe(200);
    expect(await run(pool)).toEqual({ sizeBytes: 350, sentBytes: 150 });
    expect(pool.parts).toEqual([0, 100, 200, 200, 300]);
    expect(pool.volume?.equals(content)).toBe(true);
  });

  it("begins anew where the host lost what had arrived", async () => {
    const pool = new Pool({ resumes: true });
    pool.breaksAt = 3;
    await expect(run(pool)).rejects.toThrow("the line broke");
    pool.volume = null;
    expect(await run(pool)).toEqual({ sizeBytes: 350, sentBytes: 350 });
    expect(pool.volume).toEqual(content);
  });

  it("begins anew on a host that takes no parts, and makes nothing of what is half there", async () => {
    const pool = new Pool({ resumes: false });
    pool.breaksAt = 1;
    await expect(run(pool)).rejects.toThrow("the line broke");
    expect(await filledBytes()).toBe(0);
    expect(await run(pool)).toEqual({ sizeBytes: 350, sentBytes: 350 });
    expect(pool.volume?.equals(content)).toBe(true);
  });

  it("sends nothing of what is there whole", async () => {
    const pool = new Pool({ resumes: false });
    await run(pool);
    expect(await run(pool)).toEqual({ sizeBytes: 350, sentBytes: 0 });
    expect(pool.parts).toEqual([0]);
  });

  it("never takes a content that the store holds damaged for whole", async () => {
    const damaged = Buffer.from(content);
    damaged.writeUInt8(damaged.readUInt8(0) ^ 1, 0);
    const pool = new Pool({ resumes: true });
    await expect(run(pool, damaged)).rejects.toMatchObject({ code: "internal" });
    expect(await filledBytes()).toBe(300);
  });
});
