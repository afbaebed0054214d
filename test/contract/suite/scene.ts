import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";
import {
  type Call,
  type DomainRef,
  type DomainSpec,
  type HostConnection,
  HypervisorError,
  type HypervisorErrorReason,
  type ObservedDomain,
  type ObservedPower,
  type VolumeRef,
} from "../../../src/hypervisors/hypervisor.ts";
import { newId, type VmId } from "../../../src/lib/ids.ts";
import type { ContractWorld, DriverContract } from "./world.ts";

/** What a behaviour works with: the connection, test domains and volumes, and their removal afterwards. */
export class Scene {
  readonly contract: DriverContract;
  #world: ContractWorld | null = null;
  #connection: HostConnection | null = null;
  readonly #extra: HostConnection[] = [];
  readonly #domains = new Map<string, DomainSpec>();
  readonly #volumes: VolumeRef[] = [];
  readonly #cleanups: (() => Promise<void>)[] = [];

  constructor(contract: DriverContract) {
    this.contract = contract;
  }

  get world(): ContractWorld {
    if (this.#world === null) throw new Error("the contract's world was not set up");
    return this.#world;
  }

  get connection(): HostConnection {
    if (this.#connection === null) throw new Error("the contract's world has no connection");
    return this.#connection;
  }

  async open(): Promise<void> {
    this.#world = await this.contract.setUp();
    this.#connection = await this.connect();
  }

  async close(): Promise<void> {
    await this.#connection?.close();
    await this.#world?.tearDown();
  }

  /** A further connection; closed after the behaviour, save the first. */
  async connect(): Promise<HostConnection> {
    const signal = AbortSignal.timeout(this.world.patienceMs);
    const connection = await this.world.driver.connect(this.world.target, { signal });
    if (this.#connection !== null) this.#extra.push(connection);
    return connection;
  }

  /** Connects anew where the behaviour broke the connection. */
  async reconnect(): Promise<void> {
    await this.#connection?.close();
    this.#connection = null;
    this.#connection = await this.connect();
  }

  call(overrides: Partial<Call> = {}): Call {
    const signal = new AbortController().signal;
    return { signal, timeoutMs: this.world.patienceMs, beforeSend: () => undefined, ...overrides };
  }

  /** Runs after the behaviour, before domains and volumes are removed; last registered first. */
  afterwards(cleanup: () => Promise<void>): void {
    this.#cleanups.unshift(cleanup);
  }

  async cleanUp(): Promise<void> {
    for (const cleanup of this.#cleanups.splice(0)) await cleanup();
    for (const spec of [...this.#domains.values()]) await this.#removeDomain(spec);
    for (const ref of this.#volumes.splice(0)) await this.connection.volumes?.deleteVolume(ref, this.call());
    await Promise.all(this.#extra.splice(0).map((connection) => connection.close()));
  }

  async #removeDomain(spec: DomainSpec): Promise<void> {
    const seen = await this.connection.observeDomain(spec.uuid, this.call());
    if (seen?.installationId === spec.installationId) {
      await this.connection.forceOffDomain(spec.uuid, this.call());
      await this.connection.removeDomain(spec.uuid, this.call());
    }
    await this.connection.consoleLog?.deleteConsoleLog(this.refOf(spec), this.call());
    this.#domains.delete(spec.uuid);
  }

  /** A specification of a domain of its own, removed after the behaviour, whether it was defined or not. */
  spec(overrides: Partial<DomainSpec> = {}): DomainSpec {
    const { world } = this;
    const uuid = newId<VmId>();
    const spec: DomainSpec = {
      uuid,
      name: `contract-${uuid.slice(-12)}`,
      installationId: world.target.installationId,
      guestType: this.contract.guestType,
      cpuCount: 1,
      memoryMib: world.memoryMib,
      boot:
        world.kernel === null || world.bootSector !== undefined
          ? { kind: "firmware", firmware: "bios" }
          : { kind: "kernel", ...world.kernel },
      disks: [],
      nics:
        world.network === null ? [] : [{ name: "eth0", network: world.network, macAddress: macAddress() }],
      consolePool: world.pool,
      ...overrides,
    };
    this.#domains.set(spec.uuid, spec);
    return spec;
  }

  async define(overrides: Partial<DomainSpec> = {}): Promise<DomainSpec> {
    const disks = await this.#bootDisks();
    const spec = this.spec({ ...(disks.length === 0 ? {} : { disks }), ...overrides });
    await this.connection.defineDomain(spec, this.call());
    return spec;
  }

  /** Each domain has one of its own: a disk is not shared by two that run. */
  async #bootDisks(): Promise<DomainSpec["disks"]> {
    const { bootSector } = this.world;
    const { volumes } = this.connection;
    if (bootSector === undefined) return [];
    if (volumes === undefined) throw new Error("a world with a boot sector needs volumes");
    const volume = this.volume();
    const capacityBytes = bootSector.length;
    await volumes.createVolume({ ...volume, format: "raw", capacityBytes }, this.call());
    await volumes.uploadVolume(volume, Readable.from([bootSector]), capacityBytes, this.call());
    return [{ name: "root", kind: "disk", volume, format: "raw" }];
  }

  /** A running domain; its guest may still be coming up. */
  async start(overrides: Partial<DomainSpec> = {}): Promise<DomainSpec> {
    const spec = await this.define(overrides);
    await this.connection.startDomain(spec.uuid, this.call());
    return spec;
  }

  /** Waits until the guest has come up this many times, so that it obeys. */
  async guestUp(spec: DomainSpec, boots = 1): Promise<void> {
    const { bootMarker } = this.world;
    if (bootMarker === null) return;
    await this.eventually(`boot ${boots} of the guest`, async () => (await this.bootsOf(spec)) >= boots);
  }

  /** How often the guest has come up, by its marker in the console's log; 0 where guests write none. */
  async bootsOf(spec: DomainSpec): Promise<number> {
    const { bootMarker } = this.world;
    if (bootMarker === null) return 0;
    return new Set((await this.readLog(spec)).match(new RegExp(bootMarker, "g"))).size;
  }

  async readLog(spec: DomainSpec): Promise<string> {
    const { consoleLog } = this.connection;
    if (consoleLog === undefined) throw new Error("a world with a boot marker needs a console log");
    return Buffer.from(await consoleLog.readConsoleLog(this.refOf(spec), 1 << 20, this.call())).toString(
      "utf8",
    );
  }

  refOf(spec: DomainSpec): DomainRef {
    return { uuid: spec.uuid, name: spec.name, pool: spec.consolePool };
  }

  /** A name for a volume, which is deleted after the behaviour. */
  volume(): VolumeRef {
    const ref = { pool: this.world.pool, name: `contract-${randomBytes(6).toString("hex")}.img` };
    this.#volumes.push(ref);
    return ref;
  }

  observe(spec: { readonly uuid: string }): Promise<ObservedDomain | null> {
    return this.connection.observeDomain(spec.uuid, this.call());
  }

  async power(spec: { readonly uuid: string }): Promise<ObservedPower | null> {
    return (await this.observe(spec))?.power ?? null;
  }

  async powerBecomes(spec: { readonly uuid: string }, power: ObservedPower): Promise<void> {
    await this.eventually(`power ${power}`, async () => (await this.power(spec)) === power);
  }

  /** Waits until it holds; fails when the world's patience is over. */
  async eventually(what: string, holds: () => Promise<boolean> | boolean): Promise<void> {
    const deadline = performance.now() + this.world.patienceMs;
    while (!(await holds())) {
      if (performance.now() > deadline) throw new Error(`waited in vain for ${what}`);
      await sleep(20);
    }
  }
}

/** Expects a call to be refused with one of these reasons. */
export async function expectRefusal(
  work: Promise<unknown>,
  ...reasons: HypervisorErrorReason[]
): Promise<void> {
  const error = await work.then(
    () => new Error("the call succeeded"),
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(HypervisorError);
  if (error instanceof HypervisorError) expect(reasons, error.message).toContain(error.reason);
}

/** The member that an ability promises. */
export function present<T>(member: T | undefined): T {
  if (member === undefined) throw new Error("the ability is declared, but its member is absent");
  return member;
}

/** In QEMU's own range, so that no network equipment minds it. */
function macAddress(): string {
  return ["52", "54", "00", ...(randomBytes(3).toString("hex").match(/../g) ?? [])].join(":");
}
