import { afterAll, beforeAll, expect } from "vitest";
import type { GuestType, Hypervisor } from "../../src/hypervisors/hypervisor.ts";
import { type SimControl, simControl } from "../../src/hypervisors/sim/sim-control-store.ts";
import { createSimDriver } from "../../src/hypervisors/sim/sim-driver.ts";
import { declaredCapabilities } from "../../src/hypervisors/sim/sim-facts.ts";
import { type InstallationId, newId } from "../../src/lib/ids.ts";
import { createTestDatabase, execute, type TestDatabase } from "../fixtures/database.ts";
import { type ContractWorld, describeDriverContract } from "./suite.ts";

let database: TestDatabase;
let control: SimControl;

beforeAll(async () => {
  database = await createTestDatabase();
  control = await simControl(database.url);
});
afterAll(async () => {
  await control.close();
  await database.drop();
});

const KERNEL = { pool: "default", name: "vmlinuz" };

for (const [hypervisor, guestType] of [
  ["kvm", "hvm"],
  ["xen", "pv"],
  ["xen", "pvh"],
  ["xen", "hvm"],
] as const) {
  describeDriverContract({
    name: `sim-${hypervisor}-${guestType}`,
    title: `sim, ${hypervisor === "kvm" ? "KVM" : "Xen"} ${guestType}`,
    hypervisor,
    guestType,
    declared: [...declaredCapabilities(hypervisor, guestType)],
    volumeMembers: hypervisor === "kvm" ? ["overlayVolume", "digestVolume"] : ["digestVolume"],
    setUp: () => setUp(hypervisor, guestType),
    hooks: {
      addForeignDomain: async ({ target }, mark) => {
        const name = `foreign-${newId<InstallationId>()}`;
        return control.addForeignDomain(
          target.uri,
          mark === null ? { name } : { name, installationId: mark },
        );
      },
      removeForeignDomain: ({ target }, uuid) => control.forgetDomain(target.uri, uuid),
      cutDomainPower: ({ target }, uuid) => control.setDomainPower(target.uri, uuid, "off"),
      crashDomain: ({ target }, uuid) => control.crashDomain(target.uri, uuid),
      deafen: ({ target }, spec) => control.ignoreShutdown(target.uri, spec.uuid),
      breakConnections: ({ target }) => control.breakConnections(target.uri),
      hang: async ({ target }) => {
        await control.hangNextCalls(target.uri, "*", 1);
        return () => control.clearFaults(target.uri);
      },
      fillPool: async ({ target }) => {
        await control.fillPool(target.uri);
        return () => control.fillPool(target.uri, 0);
      },
      digestOfVolume: async (_world, ref) => {
        expect(ref.name).toMatch(/^[a-z0-9.-]+$/);
        const sql = `SELECT content_sha256 AS digest FROM sim.volume WHERE name = '${ref.name}'`;
        return (await execute<{ digest: string }>(database.url, sql))[0]?.digest ?? "";
      },
    },
  });
}

async function setUp(hypervisor: Hypervisor, guestType: GuestType): Promise<ContractWorld> {
  const driver = createSimDriver({ databaseUrl: database.url });
  const target = {
    uri: `sim+${hypervisor}://${guestType}?cpus=8&memoryGib=16&numa=2&guestStopMs=30${hypervisor === "xen" ? "&rebootGapMs=200" : ""}`,
    credentials: {},
    accelerator: "auto",
    installationId: newId<InstallationId>(),
  } as const;
  const signal = new AbortController().signal;
  const connection = await driver.connect(target, { signal });
  const call = { signal, timeoutMs: 30_000, beforeSend: () => undefined };
  const kernel = Buffer.from("not really a kernel");
  await connection.volumes?.createVolume({ ...KERNEL, format: "raw", capacityBytes: kernel.length }, call);
  await connection.volumes?.uploadVolume(KERNEL, once(kernel), kernel.length, call);
  return {
    driver,
    target,
    pool: "default",
    network: "default",
    memoryMib: 256,
    kernel: { kernel: KERNEL, initrd: null, commandLine: "console=ttyS0" },
    bootMarker: /DROVER-GUEST-UP boot=[0-9a-f-]{36}/,
    patienceMs: 30_000,
    tearDown: () => connection.close(),
  };
}

async function* once(content: Buffer): AsyncGenerator<Uint8Array> {
  yield content;
}
