import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import * as rpc from "../../src/libvirt-rpc/index.ts";
import { type KvmHost, startKvmHost } from "../rigs/kvm/kvm-host.ts";
import { type Use, withConnection } from "./libvirt-connection.ts";

let host: KvmHost;

beforeAll(async () => {
  host = await startKvmHost();
});

afterAll(async () => {
  await host.stop();
});

const using: Use = (uri, use) => withConnection(host.socketPath, uri, use);

describe("storage", () => {
  const volumeXml = (name: string, bytes: number): string =>
    `<volume><name>${name}</name><capacity unit="bytes">${bytes}</capacity><target><format type="raw"/></target></volume>`;

  async function volumeOf(connection: rpc.LibvirtConnection, name: string, bytes: number) {
    const { pool } = await connection.call(rpc.storagePoolLookupByName, { name: "default" });
    const xml = volumeXml(name, bytes);
    const { volume } = await connection.call(rpc.storageVolCreateXml, { pool, xml, flags: 0 });
    return { pool, volume };
  }

  test("pools are defined, built, started, described and removed", async () => {
    await using("qemu:///system", async (connection) => {
      const xml =
        "<pool type='dir'><name>extra</name><target><path>/var/lib/libvirt/extra</path></target></pool>";
      const { pool } = await connection.call(rpc.storagePoolDefineXml, { xml, flags: 0 });
      await connection.call(rpc.storagePoolBuild, { pool, flags: 0 });
      await connection.call(rpc.storagePoolCreate, { pool, flags: 0 });
      await connection.call(rpc.storagePoolSetAutostart, { pool, autostart: true });
      await connection.call(rpc.storagePoolRefresh, { pool, flags: 0 });
      const info = await connection.call(rpc.storagePoolGetInfo, { pool });
      expect(info.state).toBe(2);
      expect(info.allocation + info.available).toBe(info.capacity);
      expect((await connection.call(rpc.storagePoolGetXmlDesc, { pool, flags: 0 })).xml).toContain("extra");
      const { pools } = await connection.call(rpc.connectListAllStoragePools, { flags: 0 });
      expect(pools).toContainEqual(pool);
      await connection.call(rpc.storagePoolDestroy, { pool });
      await connection.call(rpc.storagePoolUndefine, { pool });
    });
  });

  test("volumes are created, found, copied, resized, wiped and deleted", async () => {
    await using("qemu:///system", async (connection) => {
      const { pool, volume } = await volumeOf(connection, "first", 65_536);
      expect(await connection.call(rpc.storageVolLookupByName, { pool, name: "first" })).toEqual({ volume });
      const { name: path } = await connection.call(rpc.storageVolGetPath, { volume });
      expect(await connection.call(rpc.storageVolLookupByPath, { path })).toEqual({ volume });
      await connection.call(rpc.storageVolResize, { volume, capacity: 131_072n, flags: 0 });
      await connection.call(rpc.storageVolWipe, { volume, flags: 0 });
      const info = await connection.call(rpc.storageVolGetInfoFlags, { volume, flags: 0 });
      expect(info).toMatchObject({ type: 0, capacity: 131_072n });
      const copying = { pool, xml: volumeXml("second", 131_072), cloneVolume: volume, flags: 0 };
      const copy = await connection.call(rpc.storageVolCreateXmlFrom, copying);
      expect(
        (await connection.call(rpc.storageVolGetXmlDesc, { volume: copy.volume, flags: 0 })).xml,
      ).toContain("second");
      const { volumes } = await connection.call(rpc.storagePoolListAllVolumes, { pool, flags: 0 });
      expect(volumes).toEqual(expect.arrayContaining([volume, copy.volume]));
      for (const each of [volume, copy.volume])
        await connection.call(rpc.storageVolDelete, { volume: each, flags: 0 });
      await expect(connection.call(rpc.storageVolLookupByPath, { path })).rejects.toMatchObject({
        code: rpc.errorCode.noStorageVol,
      });
    });
  });

  test("what is uploaded comes back", async () => {
    await using("qemu:///system", async (connection) => {
      const data = Buffer.from(Array.from({ length: 3_000_001 }, (_, i) => (i * 7) % 253));
      const { volume } = await volumeOf(connection, "there-and-back", data.length);
      const range = { volume, offset: 0n, length: 0n, flags: 0 };
      await connection.upload(rpc.storageVolUpload, range, Readable.from([data]));
      expect((await buffer(connection.download(rpc.storageVolDownload, range))).equals(data)).toBe(true);
      const part = { volume, offset: 1_000n, length: 5_000n, flags: 0 };
      expect(
        (await buffer(connection.download(rpc.storageVolDownload, part))).equals(data.subarray(1_000, 6_000)),
      ).toBe(true);
      await connection.call(rpc.storageVolDelete, { volume, flags: 0 });
    });
  });

  test("a large upload takes little memory", async () => {
    await using("qemu:///system", async (connection) => {
      const chunk = Buffer.alloc(1_048_576, 1);
      const chunks = 256;
      let peakBytes = 0;
      function* source() {
        for (let i = 0; i < chunks; i++) {
          peakBytes = Math.max(peakBytes, process.memoryUsage().arrayBuffers);
          yield chunk;
        }
      }
      const { volume } = await volumeOf(connection, "large", chunk.length * chunks);
      const before = process.memoryUsage().arrayBuffers;
      const range = { volume, offset: 0n, length: 0n, flags: 0 };
      await connection.upload(rpc.storageVolUpload, range, Readable.from(source()));
      expect(peakBytes - before).toBeLessThan(64 * 1_048_576);
      await connection.call(rpc.storageVolDelete, { volume, flags: 0 });
    });
  });

  test("an upload that breaks off leaves the connection usable", async () => {
    await using("qemu:///system", async (connection) => {
      const { volume } = await volumeOf(connection, "broken", 1_048_576);
      async function* source() {
        yield Buffer.alloc(100_000);
        throw new Error("the client hung up");
      }
      const range = { volume, offset: 0n, length: 0n, flags: 0 };
      await expect(connection.upload(rpc.storageVolUpload, range, source())).rejects.toThrow(
        "the client hung up",
      );
      await connection.call(rpc.storageVolDelete, { volume, flags: 0 });
    });
  });

  test("an upload beyond the end of its volume fails with the daemon's error", async () => {
    await using("qemu:///system", async (connection) => {
      const { volume } = await volumeOf(connection, "small", 1_000);
      const range = { volume, offset: 0n, length: 1_000n, flags: 0 };
      const uploading = connection.upload(
        rpc.storageVolUpload,
        range,
        Readable.from([Buffer.alloc(2_000_000)]),
      );
      await expect(uploading).rejects.toBeInstanceOf(rpc.LibvirtError);
      await connection.call(rpc.storageVolDelete, { volume, flags: 0 });
    });
  });
});
