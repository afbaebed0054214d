import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import type { DomainSpec } from "../../src/hypervisors/hypervisor.ts";
import { domainXml, type GuestPlatform } from "../../src/hypervisors/libvirt/domain-xml.ts";
import { MARK_NAMESPACE } from "../../src/hypervisors/libvirt/ownership.ts";
import { textAt } from "../../src/hypervisors/libvirt/xml.ts";
import { readXml } from "../../src/hypervisors/libvirt/xml-reader.ts";
import { domainDefineXmlFlags } from "../../src/libvirt-rpc/index.ts";
import { withConnection } from "./libvirt-connection.ts";
import { call } from "./libvirt-qemu-world.ts";
import { LibvirtScene, PATIENCE } from "./libvirt-scene.ts";

// What the libvirt driver does beside the contract, over a real libvirtd and QEMU.

/** virDomainDefineFlags. */
const VALIDATE = 1;
const scene = new LibvirtScene();

describe("definitions", () => {
  const platform: GuestPlatform = {
    domainType: "qemu",
    architecture: "x86_64",
    machine: "q35",
    cpu: { mode: "custom", model: "Westmere" },
    hasFilters: true,
  };
  const paths = {
    disks: new Map([
      ["root", { type: "file", path: "/pool/a" } as const],
      ["data", { type: "block", path: "/dev/vg/b" } as const],
      ["cloud_init", { type: "file", path: "/pool/s" } as const],
    ]),
    kernel: "/pool/k",
    initrd: "/pool/i",
    consoleLog: "/pool/log",
  };
  const full: Partial<DomainSpec> = {
    disks: [
      { name: "root", kind: "disk", volume: { pool: "p", name: "a" }, format: "qcow2" },
      { name: "data", kind: "disk", volume: { pool: "p", name: "b" }, format: "raw" },
      { name: "cloud_init", kind: "cdrom", volume: { pool: "p", name: "s" }, format: "raw" },
    ],
  };
  const kernel = {
    kind: "kernel",
    kernel: { pool: "p", name: "k" },
    initrd: { pool: "p", name: "i" },
    commandLine: "a='1' b=\"2\" & < > &lt; é",
  } as const;

  it.each<[string, Partial<DomainSpec>, Partial<GuestPlatform>]>([
    ["plain", {}, {}],
    ["with disks", full, {}],
    ["with a kernel", { ...full, boot: kernel }, {}],
    ["with the maximal CPU", {}, { cpu: { mode: "maximum" } }],
    ["with its host's model", {}, { cpu: { mode: "host-model" } }],
  ])("%s satisfy libvirt's own schema, and come back as they were written", async (_what, change, on) => {
    const spec = scene.spec(change);
    const xml = domainXml(spec, { ...platform, ...on }, paths);
    await withConnection(scene.host.socketPath, "qemu:///system", (rpc) =>
      rpc.call(domainDefineXmlFlags, { xml, flags: VALIDATE }),
    );
    scene.afterwards(() => scene.connection.removeDomain(spec.uuid, call));
    expect(await scene.connection.observeDomain(spec.uuid, call)).toMatchObject({
      name: spec.name,
      installationId: spec.installationId,
      vmId: spec.uuid,
      cpuCount: 1,
      memoryMib: 128,
    });
    if (spec.boot.kind === "kernel") {
      const written = readXml(await scene.host.virsh(["dumpxml", spec.uuid]));
      expect(textAt(written, "os", "cmdline")).toBe(spec.boot.commandLine);
    }
  });

  it("in a pool that cannot hold a console log are refused", async () => {
    await scene.host.virsh(["pool-define-as", "vg", "logical", "--source-name", "vg", "--target", "/dev/vg"]);
    scene.afterwards(async () => {
      await scene.host.virsh(["pool-undefine", "vg"]);
    });
    const refused = scene.connection.defineDomain(scene.spec({ consolePool: "vg" }), call);
    await expect(refused).rejects.toMatchObject({ reason: "invalid-spec" });
    await expect(
      scene.connection.defineDomain(scene.spec({ consolePool: "none" }), call),
    ).rejects.toMatchObject({
      reason: "invalid-spec",
    });
  });
});

describe("what others do to a domain", () => {
  const inventoried = async (uuid: string) =>
    (await scene.connection.inventory(call)).domains.find((domain) => domain.uuid === uuid);

  /** As an administrator does with `virsh edit`. */
  const redefine = async ({ uuid }: DomainSpec, edit: (xml: string) => string) => {
    const file = join(scene.host.dir, `${uuid}.xml`);
    writeFileSync(file, edit(await scene.host.virsh(["dumpxml", uuid])));
    await scene.host.virsh(["define", file]);
  };

  it("is seen by the next inventory: its mark, its size, its autostart", async () => {
    const spec = await scene.define();
    expect(await inventoried(spec.uuid)).toMatchObject({ memoryMib: 128, autostart: false });
    await redefine(spec, (xml) => xml.replaceAll("131072</", "262144</"));
    await scene.host.virsh(["autostart", spec.uuid]);
    await vi.waitFor(async () => {
      expect(await inventoried(spec.uuid)).toMatchObject({ memoryMib: 256, autostart: true });
    }, PATIENCE);
    const mark = '<vm installation="another" id="x"/>';
    await scene.host.virsh(["metadata", spec.uuid, MARK_NAMESPACE, "--key", "d", "--set", mark]);
    await vi.waitFor(async () => {
      expect(await inventoried(spec.uuid)).toMatchObject({ installationId: "another" });
    }, PATIENCE);
    await expect(scene.connection.removeDomain(spec.uuid, call)).rejects.toMatchObject({ reason: "foreign" });
    // Given back, so that it can be removed.
    const ours = `<vm installation="${spec.installationId}" id="${spec.uuid}"/>`;
    await scene.host.virsh(["metadata", spec.uuid, MARK_NAMESPACE, "--key", "d", "--set", ours]);
  });

  it("may save it, which a start undoes and a removal forgets", async () => {
    const spec = await scene.define();
    await scene.connection.startDomain(spec.uuid, call);
    await scene.host.virsh(["managedsave", spec.uuid]);
    expect(await scene.connection.observeDomain(spec.uuid, call)).toMatchObject({
      power: "saved",
      reason: "saved",
    });
    expect(await inventoried(spec.uuid)).toMatchObject({ power: "saved" });
    await scene.connection.startDomain(spec.uuid, call);
    expect(await scene.connection.observeDomain(spec.uuid, call)).toMatchObject({
      power: "running",
      reason: "restored",
    });
    await scene.host.virsh(["managedsave", spec.uuid]);
    await scene.connection.removeDomain(spec.uuid, call);
    expect(await scene.connection.observeDomain(spec.uuid, call)).toBeNull();
  });
});

describe("a thousand domains", () => {
  it("are all in the inventory, with their marks", async () => {
    const many = await scene.connectTo({ ...scene.target, uri: scene.host.testUri });
    const specs = Array.from({ length: 1000 }, () =>
      scene.spec({ consolePool: "default-pool", nics: [], memoryMib: 64 }),
    );
    await Promise.all(specs.map((spec) => many.defineDomain(spec, call)));
    for (const _again of [1, 2]) {
      const { domains } = await many.inventory(call);
      const ours = domains.filter(({ installationId }) => installationId === scene.target.installationId);
      expect(new Set(ours.map(({ vmId }) => vmId))).toEqual(new Set(specs.map(({ uuid }) => uuid)));
    }
  });
});
