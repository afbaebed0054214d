import { Client } from "pg";
import type { SimCall } from "./sim-calls.ts";
import { ensureSimSchema } from "./sim-schema-store.ts";

/** Plays fate with simulated hosts. A host is named by its URI, whose parameters do not matter here. */
export interface SimControl {
  /** The guest crashes: its power is `crashed`. */
  crashDomain(host: string, uuid: string): Promise<void>;
  /** Changes a domain as somebody at the host would, behind Drover's back. */
  setDomainPower(host: string, uuid: string, power: "running" | "paused" | "off"): Promise<void>;
  /** The guest reboots by itself; for so long, in milliseconds, nobody sees its domain. */
  rebootDomain(host: string, uuid: string, absentMs: number): Promise<void>;
  /** Makes the host forget a domain, behind Drover's back. */
  forgetDomain(host: string, uuid: string): Promise<void>;
  /** The guest takes no notice of a request to shut down or reboot, or does so again. */
  ignoreShutdown(host: string, uuid: string, ignore?: boolean): Promise<void>;
  /** Adds a domain that is not Drover's: without a mark, or with another installation's. Returns its UUID. */
  addForeignDomain(host: string, domain: ForeignDomain): Promise<string>;
  /** Takes the host down, which breaks its connections, or brings it up again. */
  setHostDown(host: string, down: boolean): Promise<void>;
  /** Breaks all connections to a host that stays up. */
  breakConnections(host: string): Promise<void>;
  /** The host loses its power and comes back: every guest is off, every connection broken. */
  cutHostPower(host: string): Promise<void>;
  /** Takes the host out of the world, with all that is on it. */
  removeHost(host: string): Promise<void>;
  /** The next calls of this kind fail, and do nothing. */
  failNextCalls(host: string, call: SimCall | "*", count: number): Promise<void>;
  /** The next calls of this kind never answer, and do nothing. */
  hangNextCalls(host: string, call: SimCall | "*", count: number): Promise<void>;
  /** The next calls of this kind take effect, and fail. */
  loseNextAnswers(host: string, call: SimCall | "*", count: number): Promise<void>;
  /** Takes back all failures, hangs and lost answers that were ordered and have not come yet. */
  clearFaults(host: string): Promise<void>;
  /** Takes up space in the host's pool, all of it when no amount is given; 0 frees it again. */
  fillPool(host: string, bytes?: number): Promise<void>;
  close(): Promise<void>;
}

export interface ForeignDomain {
  readonly name: string;
  /** The mark of another installation; without: none. */
  readonly installationId?: string;
  readonly memoryMib?: number;
  readonly cpuCount?: number;
  readonly power?: "running" | "paused" | "off";
}

/** More than any pool can hold: the bound of the parameter poolGib is 1 PiB. */
const EVERYTHING_BYTES = 2 ** 52;

/** Opens the control of the simulated hosts whose world is in this database. Makes the world where there is none. */
export async function simControl(databaseUrl: string): Promise<SimControl> {
  const client = new Client({ connectionString: databaseUrl, application_name: "drover-sim-control" });
  // A broken connection shows in the next call, which rejects.
  client.on("error", () => undefined);
  await client.connect();
  await ensureSimSchema(client);
  const run = async (fn: string, ...args: readonly unknown[]): Promise<unknown> => {
    const places = args.map((_, index) => `$${index + 1}`).join(", ");
    const result = await client.query<{ value: unknown }>(`SELECT sim.${fn}(${places}) AS value`, [...args]);
    return result.rows[0]?.value;
  };
  const runOnly = async (fn: string, ...args: readonly unknown[]): Promise<void> => {
    await run(fn, ...args);
  };
  return {
    crashDomain: (host, uuid) => runOnly("crash_domain", host, uuid),
    setDomainPower: (host, uuid, power) => runOnly("set_domain_power", host, uuid, power),
    rebootDomain: (host, uuid, absentMs) => runOnly("reboot_domain", host, uuid, absentMs),
    forgetDomain: (host, uuid) => runOnly("forget_domain", host, uuid),
    ignoreShutdown: (host, uuid, ignore = true) => runOnly("ignore_shutdown", host, uuid, ignore),
    async addForeignDomain(
      host,
      { name, installationId = null, memoryMib = 512, cpuCount = 1, power = "running" },
    ) {
      return String(await run("add_foreign_domain", host, name, installationId, memoryMib, cpuCount, power));
    },
    setHostDown: (host, down) => runOnly("set_host_down", host, down),
    breakConnections: (host) => runOnly("break_connections", host),
    cutHostPower: (host) => runOnly("cut_host_power", host),
    removeHost: (host) => runOnly("remove_host", host),
    failNextCalls: (host, call, count) => runOnly("add_fault", host, call, "fail", count),
    hangNextCalls: (host, call, count) => runOnly("add_fault", host, call, "hang", count),
    loseNextAnswers: (host, call, count) => runOnly("add_fault", host, call, "lose-answer", count),
    clearFaults: (host) => runOnly("clear_faults", host),
    fillPool: (host, bytes = EVERYTHING_BYTES) => runOnly("fill_pool", host, bytes),
    close: () => client.end(),
  };
}
