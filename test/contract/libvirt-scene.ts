import { join } from "node:path";
import { afterAll, afterEach, beforeAll } from "vitest";
import type { DomainRef, DomainSpec, HostConnection, HostTarget } from "../../src/hypervisors/hypervisor.ts";
import { consoleLogName } from "../../src/hypervisors/libvirt/console-log-parts.ts";
import { libvirtDriver } from "../../src/hypervisors/libvirt/driver.ts";
import { newId, type VmId } from "../../src/lib/ids.ts";
import { type KvmHost, type KvmHostOptions, startKvmHost } from "../rigs/kvm/kvm-host.ts";
import { call, targetOf } from "./libvirt-qemu-world.ts";

export const POOL = "default";
export const POOL_PATH = "/var/lib/libvirt/images";

/** How long to wait for what a guest or a daemon does: generous, for a busy machine. */
export const PATIENCE = { timeout: 180_000, interval: 250 };

/** A real libvirtd, the driver connected to it, and domains that are removed after each test. */
export class LibvirtScene {
  readonly #options: KvmHostOptions;
  readonly #cleanups: (() => Promise<unknown>)[] = [];
  #host: KvmHost | null = null;
  #target: HostTarget | null = null;
  #connection: HostConnection | null = null;

  constructor(options: KvmHostOptions = {}) {
    this.#options = options;
    beforeAll(() => this.#open());
    afterEach(() => this.#cleanUp());
    afterAll(() => this.#close());
  }

  get host(): KvmHost {
    return there(this.#host);
  }

  get target(): HostTarget {
    return there(this.#target);
  }

  get connection(): HostConnection {
    return there(this.#connection);
  }

  /** Runs after the test; last registered first. */
  afterwards(cleanup: () => Promise<unknown>): void {
    this.#cleanups.unshift(cleanup);
  }

  /** A further connection, closed after the test. */
  async connectTo(target: HostTarget): Promise<HostConnection> {
    const made = await libvirtDriver.connect(target, call);
    this.afterwards(() => made.close());
    return made;
  }

  spec(change: Partial<DomainSpec> = {}): DomainSpec {
    const uuid = newId<VmId>();
    return {
      uuid,
      name: `vm-${uuid.slice(-12)}`,
      installationId: this.target.installationId,
      guestType: "hvm",
      cpuCount: 1,
      memoryMib: 128,
      boot: { kind: "firmware", firmware: "bios" },
      disks: [],
      nics: [{ name: "eth0", network: "default", macAddress: "52:54:00:12:34:56" }],
      consolePool: POOL,
      ...change,
    };
  }

  async define(change: Partial<DomainSpec> = {}): Promise<DomainSpec> {
    const spec = this.spec(change);
    this.afterwards(() => this.#remove(spec));
    await this.connection.defineDomain(spec, call);
    return spec;
  }

  refOf({ uuid, name }: DomainSpec): DomainRef {
    return { uuid, name, pool: POOL };
  }

  async readLog(spec: DomainSpec, over = this.connection, maxBytes = 1 << 20): Promise<string> {
    const bytes = await there(over.consoleLog).readConsoleLog(this.refOf(spec), maxBytes, call);
    return Buffer.from(bytes).toString("utf8");
  }

  /** Writes a part of a console log as virtlogd does: for root only. */
  async writeLog(spec: DomainSpec, part: string, content: string): Promise<void> {
    const path = join(POOL_PATH, `${consoleLogName(spec.uuid)}${part}`);
    await this.host.exec("sh", ["-c", 'umask 077; printf %s "$1" >"$2"', "sh", content, path]);
  }

  async #open(): Promise<void> {
    this.#host = await startKvmHost(this.#options);
    this.#target = targetOf(this.#host.uri);
    this.#connection = await libvirtDriver.connect(this.#target, call);
  }

  async #cleanUp(): Promise<void> {
    for (const cleanup of this.#cleanups.splice(0)) await cleanup();
  }

  async #close(): Promise<void> {
    await this.#connection?.close();
    await this.#host?.stop();
  }

  async #remove(spec: DomainSpec): Promise<void> {
    const { connection } = this;
    if ((await connection.observeDomain(spec.uuid, call)) !== null) {
      await connection.forceOffDomain(spec.uuid, call);
      await connection.removeDomain(spec.uuid, call);
    }
    await there(connection.consoleLog).deleteConsoleLog(this.refOf(spec), call);
  }
}

/** What must be there by now. */
export function there<T>(value: T | null | undefined): T {
  if (value === null || value === undefined) throw new Error("it is not there");
  return value;
}
