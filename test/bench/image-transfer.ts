import { randomBytes, randomUUID } from "node:crypto";
import { createReadStream, rmSync } from "node:fs";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { GIB, MIB } from "../../src/lib/units.ts";
import * as rpc from "../../src/libvirt-rpc/index.ts";
import type { Benchmark, Print } from "./benchmark.ts";
import { type LibvirtScene, withLibvirtScene } from "./libvirt-scene.ts";
import { percentile } from "./load.ts";
import { describeMachine } from "./machine.ts";

const ROUNDS = 5;
const CREATES = 20;
const WARM_UP = 3;
const SPEED_GOAL = 0.5;
const CREATE_GOAL = 1.5;
const POOL = "default";
const IMAGE = "bench-image";
const HOST = "bench";
/** Of a libvirt domain's XML: as it is defined, not as it runs. */
const INACTIVE = 2;

/** A GiB of random bytes as a qcow2, brought to a host on the same disk, and VMs made of it. */
export const imageTransfer: Benchmark = {
  name: "image-transfer",
  title:
    "an image of 1 GiB to a host, against plain copies on the same disk; VMs of it, against the bare calls",
  async run(print) {
    const directory = await mkdtemp(join(tmpdir(), "drover-bench-image-"));
    try {
      const file = await makeImage(directory);
      await withLibvirtScene("qemu", async (scene) => {
        for (const line of await describeMachine(scene.service.databaseUrl)) print(line);
        const id = await upload(scene, file);
        await measureTransfer(print, scene, file, id);
        for (const runPolicy of ["running", "stopped"] as const)
          await measureCreates(print, scene, runPolicy);
      });
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  },
};

async function makeImage(directory: string): Promise<string> {
  const raw = join(directory, "raw");
  const file = join(directory, "image.qcow2");
  const handle = await open(raw, "w");
  for (let at = 0; at < GIB; at += 16 * MIB) await handle.write(randomBytes(16 * MIB));
  await handle.close();
  await execa("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", raw, file]);
  rmSync(raw);
  return file;
}

async function upload({ service }: LibvirtScene, file: string): Promise<string> {
  const answer = await fetch(`${service.url}/v1/images/${IMAGE}/content?kind=disk`, {
    method: "PUT",
    headers: { authorization: `Bearer ${service.token}`, "content-type": "application/octet-stream" },
    body: ReadableStream.from(createReadStream(file)),
    duplex: "half",
  });
  if (!answer.ok) throw new Error(`no image: ${await answer.text()}`);
  return ((await answer.json()) as { readonly id: string }).id;
}

interface HostImageAnswer {
  readonly hostImage: { readonly id: string };
  readonly operation: { readonly id: string; readonly state: string; readonly endedAt: string | null };
}

async function measureTransfer(
  print: Print,
  { service, host }: LibvirtScene,
  file: string,
  image: string,
): Promise<void> {
  const target = join(host.poolDir, "bench-copy");
  const copies = {
    cp: ["cp", "--reflink=never", "--sparse=never", file, target],
    "qemu-img convert": ["qemu-img", "convert", "-O", "qcow2", file, target],
  } as const;
  const times = { drover: [] as number[], cp: [] as number[], "qemu-img convert": [] as number[] };
  let last = "";
  for (let round = 0; round < ROUNDS; round++) {
    for (const name of ["cp", "qemu-img convert"] as const) {
      const [program, ...args] = copies[name];
      times[name].push(await timed(() => execa(program, args)));
      rmSync(target);
    }
    if (last !== "")
      await ended(
        service,
        service.request<HostImageAnswer>("DELETE", `/v1/hosts/${HOST}/images/${last}?wait=60`),
      );
    const body = { image, pool: POOL };
    const path = `/v1/hosts/${HOST}/images?wait=60`;
    times.drover.push(
      await timed(async () => {
        last = (await ended(service, service.request<HostImageAnswer>("POST", path, body))).hostImage.id;
      }),
    );
  }
  const speed = (ms: readonly number[]): number => GIB / MIB / (percentile(ms, 0.5) / 1000);
  const ours = speed(times.drover);
  print(`1 GiB to the host, median of ${ROUNDS}: ${ours.toFixed(0)} MiB/s, from the request to the answer`);
  for (const name of ["cp", "qemu-img convert"] as const) {
    const theirs = speed(times[name]);
    print(
      `${name}: ${theirs.toFixed(0)} MiB/s; ours is ${(ours / theirs).toFixed(2)} of it (goal ${SPEED_GOAL})`,
    );
  }
}

/** Waits for the operation's end, which on a busy machine may be later than any answer is held. */
async function ended(
  service: LibvirtScene["service"],
  answer: Promise<HostImageAnswer>,
): Promise<HostImageAnswer> {
  const body = await answer;
  let { operation } = body;
  while (operation.endedAt === null) {
    operation = await service.request("GET", `/v1/operations/${operation.id}?wait=60`);
  }
  if (operation.state !== "succeeded") throw new Error(JSON.stringify(operation));
  return body;
}

/** By turns through the API and by the same calls on our own RPC client: an overlay, a definition, a start. */
async function measureCreates(
  print: Print,
  { service, raw }: LibvirtScene,
  runPolicy: "running" | "stopped",
): Promise<void> {
  const times = { api: [] as number[], bare: [] as number[] };
  for (let round = -WARM_UP; round < CREATES; round++) {
    const name = `${runPolicy}-${round + WARM_UP}`;
    const spec = {
      cpu: { count: 1 },
      memoryMib: 64,
      runPolicy,
      disks: [{ name: "root", image: IMAGE }],
      nics: [{ name: "eth0", network: "default" }],
    };
    let uuid = "";
    const api = await timed(async () => {
      const answer = await service.request<{
        readonly vm: { readonly id: string };
        readonly operation: { readonly state: string };
      }>("POST", "/v1/vms?wait=60", { name, spec });
      if (answer.operation.state !== "succeeded") throw new Error(JSON.stringify(answer.operation));
      uuid = answer.vm.id;
    });
    const model = await modelOf(raw, uuid);
    await service.request("DELETE", `/v1/vms/${name}?wait=60`);
    const bare = await timed(() => createBare(raw, model, runPolicy === "running"));
    await removeBare(raw, model);
    if (round < 0) continue;
    times.api.push(api);
    times.bare.push(bare);
  }
  const [api, bare] = [percentile(times.api, 0.5), percentile(times.bare, 0.5)];
  print(
    `a ${runPolicy} VM of the cached image, p50 of ${CREATES}: ${api.toFixed(0)} ms through the API, ` +
      `${bare.toFixed(0)} ms by the bare calls: ${(api / bare).toFixed(2)} times (goal ${CREATE_GOAL}), ` +
      `${(api - bare).toFixed(0)} ms more`,
  );
}

/** The definitions that the service made, under other names. */
interface Model {
  readonly uuid: string;
  readonly volume: string;
  readonly volumeXml: string;
  readonly domainXml: string;
}

type Raw = LibvirtScene["raw"];

async function modelOf(raw: Raw, uuid: string): Promise<Model> {
  const { pool } = await raw.call(rpc.storagePoolLookupByName, { name: POOL });
  const { domain } = await raw.call(rpc.domainLookupByUuid, { uuid });
  const { xml } = await raw.call(rpc.domainGetXmlDesc, { domain, flags: INACTIVE });
  const name = /\/(drover-[^/']*disk-root\.qcow2)'/.exec(xml)?.[1] ?? "";
  const { volume } = await raw.call(rpc.storageVolLookupByName, { pool, name });
  const volumeXml = (await raw.call(rpc.storageVolGetXmlDesc, { volume, flags: 0 })).xml;
  const base = /<backingStore>.*?<path>([^<]*)<\/path>/s.exec(volumeXml)?.[1] ?? "";
  const capacity = /<capacity unit='bytes'>(\d+)</.exec(volumeXml)?.[1] ?? "";
  const own = randomUUID();
  const renamed = (text: string): string =>
    text.replaceAll(uuid, own).replaceAll(uuid.slice(-12), own.slice(-12));
  const copy = renamed(name);
  return {
    uuid: own,
    volume: copy,
    volumeXml: `<volume><name>${copy}</name><capacity unit="bytes">${capacity}</capacity>
      <allocation unit="bytes">0</allocation><target><format type="qcow2"/><permissions><mode>0600</mode></permissions>
      <compat>1.1</compat></target><backingStore><path>${base}</path><format type="qcow2"/></backingStore></volume>`,
    domainXml: renamed(xml),
  };
}

async function createBare(raw: Raw, model: Model, start: boolean): Promise<void> {
  const { pool } = await raw.call(rpc.storagePoolLookupByName, { name: POOL });
  await raw.call(rpc.storageVolCreateXml, { pool, xml: model.volumeXml, flags: 0 });
  const { domain } = await raw.call(rpc.domainDefineXmlFlags, { xml: model.domainXml, flags: 0 });
  if (start) await raw.call(rpc.domainCreateWithFlags, { domain, flags: 0 });
}

async function removeBare(raw: Raw, { uuid, volume: name }: Model): Promise<void> {
  const { pool } = await raw.call(rpc.storagePoolLookupByName, { name: POOL });
  const { domain } = await raw.call(rpc.domainLookupByUuid, { uuid });
  await raw.call(rpc.domainDestroyFlags, { domain, flags: 0 }).catch(() => undefined);
  await raw.call(rpc.domainUndefineFlags, { domain, flags: 0 });
  const { volume } = await raw.call(rpc.storageVolLookupByName, { pool, name });
  await raw.call(rpc.storageVolDelete, { volume, flags: 0 });
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const before = performance.now();
  await work();
  return performance.now() - before;
}
