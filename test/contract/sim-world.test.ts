import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { HostConnection, HostEvent } from "../../src/hypervisors/hypervisor.ts";
import { type SimControl, simControl } from "../../src/hypervisors/sim/sim-control-store.ts";
import { createSimDriver } from "../../src/hypervisors/sim/sim-driver.ts";
import { fateOf } from "../../src/hypervisors/sim/sim-fate.ts";
import { createEmptyDatabase, createTestDatabase, execute, type TestDatabase } from "../fixtures/database.ts";
import { anyCall, connectSim, installationId, outcomeOf, simDomain } from "../fixtures/sim-host.ts";

let database: TestDatabase;
let control: SimControl;
const open: HostConnection[] = [];

beforeAll(async () => {
  database = await createTestDatabase();
  control = await simControl(database.url);
});
afterAll(async () => {
  await Promise.all(open.map((connection) => connection.close()));
  await control.close();
  await database.drop();
});

/** A driver of its own: what another process, or the same one after a restart, would have. */
async function connect(
  uri: string,
  driver = createSimDriver({ databaseUrl: database.url }),
): Promise<HostConnection> {
  const connection = await connectSim(driver, uri);
  open.push(connection);
  return connection;
}

async function running(host: HostConnection, overrides = {}) {
  const spec = simDomain(overrides);
  await host.defineDomain(spec, anyCall());
  await host.startDomain(spec.uuid, anyCall());
  return spec;
}

async function eventually(holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 30_000;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error("waited in vain");
    await sleep(10);
  }
}

describe("the simulated world", () => {
  it("is made once, by whoever comes first", async () => {
    const empty = await createEmptyDatabase();
    const drivers = Array.from({ length: 8 }, () => createSimDriver({ databaseUrl: empty.url }));
    const connections = await Promise.all(drivers.map((driver) => connectSim(driver, "sim+kvm://same")));
    const hosts = await execute<{ count: string }>(empty.url, "SELECT count(*) FROM sim.host");
    expect(hosts[0]?.count).toBe("1");
    await Promise.all(connections.map((connection) => connection.close()));
    await empty.drop();
  });

  it("makes its functions anew when their text has changed, and keeps the hosts", async () => {
    const empty = await createEmptyDatabase();
    const first = await connectSim(createSimDriver({ databaseUrl: empty.url }), "sim+kvm://kept");
    const spec = await running(first);
    await first.close();
    await execute(empty.url, "UPDATE sim.schema_state SET functions = 'older'");
    await execute(empty.url, "CREATE FUNCTION sim.gone() RETURNS integer LANGUAGE sql AS 'SELECT 1'");
    const second = await connectSim(createSimDriver({ databaseUrl: empty.url }), "sim+kvm://kept");
    expect(await second.observeDomain(spec.uuid, anyCall())).toMatchObject({ power: "running" });
    await second.forceOffDomain(spec.uuid, anyCall());
    await second.close();
    await expect(execute(empty.url, "SELECT sim.gone()")).rejects.toThrow("does not exist");
    await empty.drop();
  });

  it("is not opened by a Drover that is older than it", async () => {
    const empty = await createEmptyDatabase();
    const driver = createSimDriver({ databaseUrl: empty.url });
    await (await connectSim(driver, "sim+kvm://newer")).close();
    await execute(empty.url, "UPDATE sim.schema_state SET version = 99");
    await expect(connectSim(driver, "sim+kvm://newer")).rejects.toThrow("newer Drover");
    await empty.drop();
  });

  it("survives a restart of its user, and is one for all of them", async () => {
    const spec = await running(await connect("sim+kvm://lasting"));
    const later = await connect("sim+kvm://lasting?latencyMs=1");
    expect(await later.observeDomain(spec.uuid, anyCall())).toMatchObject({
      power: "running",
      name: spec.name,
    });
    expect((await later.inventory(anyCall())).domains).toHaveLength(1);
  });

  it("tells events to every process", async () => {
    const [here, there] = [await connect("sim+kvm://events"), await connect("sim+kvm://events")];
    const elsewhere = await connect("sim+kvm://no-events");
    const heard: HostEvent[] = [];
    there.watch((event) => heard.push(event));
    elsewhere.watch(() => {
      throw new Error("an event of another host");
    });
    const spec = await running(here);
    await eventually(() => heard.length === 2);
    expect(heard).toEqual([
      { kind: "domain-changed", uuid: spec.uuid, detail: "defined" },
      { kind: "domain-changed", uuid: spec.uuid, detail: "started" },
    ]);
  });

  it("leaves no connection open when the last host is closed", async () => {
    const driver = createSimDriver({
      databaseUrl: `${database.url}${database.url.includes("?") ? "&" : "?"}application_name=counted`,
    });
    const hosts = [await connectSim(driver, "sim+kvm://c1"), await connectSim(driver, "sim+kvm://c2")];
    await Promise.all(hosts.map((host) => host.inventory(anyCall())));
    const count = async (): Promise<number> => {
      const sql =
        "SELECT count(*)::integer AS count FROM pg_stat_activity WHERE application_name = 'counted'";
      return (await execute<{ count: number }>(database.url, sql))[0]?.count ?? 0;
    };
    expect(await count()).toBeGreaterThan(0);
    await Promise.all(hosts.map((host) => host.close()));
    await eventually(async () => (await count()) === 0);
  });

  it("is lost, with all its hosts, when the database closes the connection; and can be opened again", async () => {
    const driver = createSimDriver({ databaseUrl: database.url });
    const hosts = [await connect("sim+kvm://w1", driver), await connect("sim+xen://w2", driver)];
    const told: string[] = [];
    for (const host of hosts) host.onClose((error) => told.push(error.reason));
    await terminateDriversConnections();
    await eventually(() => told.length === 2);
    expect(told).toEqual(["unreachable", "unreachable"]);
    const again = await connect("sim+kvm://w1", driver);
    expect((await again.inventory(anyCall())).domains).toEqual([]);
  });

  it("refuses the calls that are under way when the database closes the connection", async () => {
    const host = await connect("sim+kvm://under-way");
    const spec = simDomain();
    await host.defineDomain(spec, anyCall());
    const blocker = new Client({ connectionString: database.url });
    await blocker.connect();
    await blocker.query("BEGIN; SELECT FROM sim.host WHERE name = 'under-way' FOR UPDATE");
    const starting = outcomeOf(host.startDomain(spec.uuid, anyCall()));
    const waiting =
      "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    await eventually(async () => (await execute(database.url, waiting)).length > 0);
    await terminateDriversConnections();
    expect(await starting).toBe("unreachable");
    await blocker.end();
  });
});

/** Ends the drivers' connections to the database, as its restart would. */
async function terminateDriversConnections(): Promise<void> {
  const sql =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()" +
    " AND application_name = 'drover-sim'";
  await execute(database.url, sql);
}

describe("a simulated host", () => {
  it("never gives out more memory than it has, however many start at once", async () => {
    const host = await connect("sim+kvm://small?memoryGib=2");
    const specs = Array.from({ length: 12 }, () => simDomain({ memoryMib: 300 }));
    await Promise.all(specs.map((spec) => host.defineDomain(spec, anyCall())));
    const outcomes = await Promise.all(
      specs.map((spec) => outcomeOf(host.startDomain(spec.uuid, anyCall()))),
    );
    expect(outcomes.filter((outcome) => outcome === "ok")).toHaveLength(6);
    expect(outcomes.filter((outcome) => outcome === "no-capacity")).toHaveLength(6);
    const { memoryFreeMib, domains } = await host.inventory(anyCall());
    expect(memoryFreeMib).toBe(2048 - 6 * 300);
    const freed = domains.find(({ power }) => power === "running")?.uuid ?? "";
    const waiting = domains.find(({ power }) => power === "off")?.uuid ?? "";
    await host.forceOffDomain(freed, anyCall());
    await host.startDomain(waiting, anyCall());
  });

  it("starts nothing whose network, kernel or disk it does not have", async () => {
    const host = await connect("sim+kvm://bare");
    const volume = { pool: "default", name: "there.img" };
    await host.volumes?.createVolume({ ...volume, format: "raw", capacityBytes: 4096 }, anyCall());
    const lacking = { pool: "default", name: "lacking.img" };
    const disk = (ref: typeof volume) => ({
      disks: [{ name: "root", kind: "disk" as const, volume: ref, format: "raw" as const }],
    });
    const nic = (network: string) => ({ nics: [{ name: "eth0", network, macAddress: "52:54:00:00:00:01" }] });
    const kernel = (ref: typeof volume) => ({
      boot: { kind: "kernel" as const, kernel: volume, initrd: ref, commandLine: "" },
    });
    const outcomes = await Promise.all(
      [disk(volume), disk(lacking), nic("default"), nic("lacking"), kernel(volume), kernel(lacking)].map(
        async (parts) => {
          const spec = simDomain(parts);
          await host.defineDomain(spec, anyCall());
          return outcomeOf(host.startDomain(spec.uuid, anyCall()));
        },
      ),
    );
    expect(outcomes).toEqual(["ok", "invalid-spec", "ok", "invalid-spec", "ok", "invalid-spec"]);
  });

  it("refuses a specification that its hypervisor cannot run", async () => {
    const [kvm, xen] = [await connect("sim+kvm://k"), await connect("sim+xen://x")];
    const define = (host: HostConnection, overrides: Parameters<typeof simDomain>[0]) =>
      outcomeOf(host.defineDomain(simDomain(overrides), anyCall()));
    expect(await define(kvm, { guestType: "pv" })).toBe("invalid-spec");
    expect(await define(xen, { guestType: "pv" })).toBe("invalid-spec");
    expect(await define(xen, { guestType: "hvm" })).toBe("ok");
    expect(await define(kvm, { cpuCount: 0 })).toBe("invalid-spec");
    expect(await define(kvm, { memoryMib: 0.5 })).toBe("invalid-spec");
    expect(await define(kvm, { name: "with a \0 in it" })).toBe("invalid-spec");
  });

  it("resets only fully virtual guests of Xen", async () => {
    const host = await connect("sim+xen://resets");
    const volume = { pool: "default", name: "vmlinuz" };
    await host.volumes?.createVolume({ ...volume, format: "raw", capacityBytes: 4096 }, anyCall());
    const boot = { kind: "kernel", kernel: volume, initrd: null, commandLine: "" } as const;
    const [pv, hvm] = [
      await running(host, { guestType: "pv", boot }),
      await running(host, { guestType: "hvm" }),
    ];
    expect(
      await outcomeOf(host.resetDomain?.(pv.uuid, anyCall()) ?? Promise.reject(new Error("no reset"))),
    ).toBe("unsupported");
    await host.resetDomain?.(hvm.uuid, anyCall());
  });

  it("has guests that hear nothing while they are paused", async () => {
    const host = await connect("sim+kvm://asleep");
    const spec = await running(host);
    await host.pause?.pauseDomain(spec.uuid, anyCall());
    const before = await host.observeDomain(spec.uuid, anyCall());
    await host.requestShutdown(spec.uuid, anyCall());
    await host.rebootDomain?.(spec.uuid, anyCall());
    expect(await host.observeDomain(spec.uuid, anyCall())).toEqual(before);
    await host.pause?.resumeDomain(spec.uuid, anyCall());
    expect(await host.observeDomain(spec.uuid, anyCall())).toMatchObject({ power: "running" });
  });

  it("takes the guest's time to shut down, and tells when it is over", async () => {
    const host = await connect("sim+kvm://slow?guestStopMs=200");
    const spec = await running(host);
    const heard: string[] = [];
    host.watch((event) => heard.push(event.kind === "domain-changed" ? event.detail : event.kind));
    await host.requestShutdown(spec.uuid, anyCall());
    expect(await host.observeDomain(spec.uuid, anyCall())).toMatchObject({ power: "running" });
    await eventually(() => heard.includes("stopped"));
    expect(await host.observeDomain(spec.uuid, anyCall())).toMatchObject({
      power: "off",
      reason: "shutdown",
    });
  });

  it("stops a guest in time also when the one who asked is gone", async () => {
    const asking = await connect("sim+kvm://left?guestStopMs=100");
    const spec = await running(asking);
    await asking.requestShutdown(spec.uuid, anyCall());
    await asking.close();
    const host = await connect("sim+kvm://left?guestStopMs=100");
    await eventually(async () => (await host.observeDomain(spec.uuid, anyCall()))?.power === "off");
    await host.startDomain(spec.uuid, anyCall());
    expect(await host.observeDomain(spec.uuid, anyCall())).toMatchObject({ power: "running" });
  });

  it("shows in a volume of qcow2 the size that its content says", async () => {
    const host = await connect("sim+kvm://images");
    const ref = { pool: "default", name: "image.qcow2" };
    await host.volumes?.createVolume({ ...ref, format: "qcow2", capacityBytes: 1000 }, anyCall());
    const header = Buffer.alloc(512);
    header.writeUInt32BE(0x514649fb, 0);
    header.writeBigUInt64BE(10n << 30n, 24);
    const source = (async function* () {
      yield header.subarray(0, 20);
      yield header.subarray(20);
    })();
    await host.volumes?.uploadVolume(ref, source, header.length, anyCall());
    expect(await host.volumes?.observeVolume(ref, anyCall())).toMatchObject({ capacityBytes: 10 * 2 ** 30 });
  });
});

describe("faults of a simulated host", () => {
  it("are the same for the same seed", async () => {
    const outcomes = async (uri: string): Promise<string[]> => {
      const host = await connect(uri);
      const all: string[] = [];
      for (let n = 0; n < 40; n += 1)
        all.push(await outcomeOf(host.observeDomain(simDomain().uuid, anyCall())));
      return all;
    };
    const first = await outcomes("sim+kvm://s1?failRate=0.3&seed=7");
    expect(await outcomes("sim+kvm://s2?failRate=0.3&seed=7")).toEqual(first);
    expect(await outcomes("sim+kvm://s3?failRate=0.3&seed=8")).not.toEqual(first);
    expect(new Set(first)).toEqual(new Set(["ok", "failed"]));
  });

  it("go on counting over connections, so that what failed once can pass", async () => {
    const driver = createSimDriver({ databaseUrl: database.url });
    const outcomes: string[] = [];
    for (let n = 0; n < 30; n += 1) {
      const host = await connect("sim+kvm://flaky?failRate=0.5&seed=3", driver);
      outcomes.push(await outcomeOf(host.probe(anyCall())));
    }
    expect(new Set(outcomes)).toEqual(new Set(["ok", "failed"]));
  });

  it("can be ordered for connecting, which is then out of reach", async () => {
    const uri = "sim+kvm://closed-door";
    await control.failNextCalls(uri, "connect", 1);
    expect(await outcomeOf(connect(uri))).toBe("unreachable");
    await control.hangNextCalls(uri, "connect", 1);
    const target = { uri, credentials: {}, accelerator: "auto", installationId } as const;
    const stop = new AbortController();
    const connecting = createSimDriver({ databaseUrl: database.url }).connect(target, {
      signal: stop.signal,
    });
    await eventually(async () => (await execute(database.url, "SELECT FROM sim.fault")).length === 0);
    stop.abort();
    expect(await outcomeOf(connecting)).toBe("aborted");
    expect(await outcomeOf(connect(uri))).toBe("ok");
  });

  it("that fail do nothing, that lose the answer do all", async () => {
    const uri = "sim+kvm://ordered";
    const host = await connect(uri);
    const spec = simDomain();
    const define = () => outcomeOf(host.defineDomain(spec, anyCall()));
    await control.failNextCalls(uri, "defineDomain", 2);
    expect([await define(), await define()]).toEqual(["failed", "failed"]);
    expect(await host.observeDomain(spec.uuid, anyCall())).toBeNull();
    await control.loseNextAnswers(uri, "defineDomain", 1);
    expect(await define()).toBe("failed");
    expect(await host.observeDomain(spec.uuid, anyCall())).not.toBeNull();
    expect(await define()).toBe("ok");
  });

  it("of calls that only look come as ordered, and for all kinds where that is ordered", async () => {
    const uri = "sim+kvm://looking";
    const host = await connect(uri);
    await control.failNextCalls(uri, "inventory", 1);
    await control.failNextCalls(uri, "*", 1);
    expect(await outcomeOf(host.probe(anyCall()))).toBe("failed");
    expect(await outcomeOf(host.inventory(anyCall()))).toBe("failed");
    expect(await outcomeOf(host.inventory(anyCall()))).toBe("ok");
    await control.hangNextCalls(uri, "probe", 1);
    expect(await outcomeOf(host.probe(anyCall({ timeoutMs: 100 })))).toBe("timeout");
    await control.failNextCalls(uri, "*", 100);
    await control.clearFaults(uri);
    expect(await outcomeOf(host.probe(anyCall()))).toBe("ok");
  });

  it("by rate: a lost answer is of a call that took effect", async () => {
    const host = await connect("sim+kvm://losing?loseAnswerRate=1");
    const spec = simDomain();
    expect(await outcomeOf(host.defineDomain(spec, anyCall()))).toBe("failed");
    expect((await (await connect("sim+kvm://losing")).inventory(anyCall())).domains).toHaveLength(1);
  });

  it("by rate: a hung call ends with its deadline, and was not sent", async () => {
    const uri = "sim+kvm://hanging?hangRate=0.5&seed=2";
    const host = await connect(uri);
    const settings = {
      name: "hanging",
      seed: 2,
      latencyMs: 0,
      failRate: 0,
      hangRate: 0.5,
      loseAnswerRate: 0,
    };
    const fates = Array.from({ length: 20 }, (_, n) => fateOf(settings, "defineDomain", n).outcome);
    const seen: string[] = [];
    for (const fate of fates) {
      let sent = 0;
      const timeoutMs = fate === "hang" ? 20 : 30_000;
      const call = anyCall({ timeoutMs, beforeSend: () => (sent += 1) });
      seen.push(`${await outcomeOf(host.defineDomain(simDomain(), call))} sent ${sent}`);
    }
    expect(seen).toEqual(fates.map((fate) => (fate === "hang" ? "timeout sent 0" : "ok sent 1")));
    expect(new Set(fates)).toEqual(new Set(["hang", "answer"]));
  });
});

describe("the control of simulated hosts", () => {
  it("takes a host down and up", async () => {
    const uri = "sim+kvm://updown";
    const host = await connect(uri);
    const spec = await running(host);
    const told: string[] = [];
    host.onClose((error) => told.push(error.reason));
    await control.setHostDown(uri, true);
    await eventually(() => told.length > 0);
    expect(await outcomeOf(host.inventory(anyCall()))).toBe("unreachable");
    expect(await outcomeOf(connect(uri))).toBe("unreachable");
    await control.setHostDown(uri, false);
    expect(await (await connect(uri)).observeDomain(spec.uuid, anyCall())).toMatchObject({
      power: "running",
    });
    expect(told).toEqual(["unreachable"]);
  });

  it("ends the calls under way when the host goes down", async () => {
    const uri = "sim+kvm://midway?latencyMs=600000";
    // Connecting takes its time too: the connection comes from a quick URI of the same host.
    const host = await connect("sim+kvm://midway");
    await control.hangNextCalls(uri, "inventory", 1);
    const waiting = outcomeOf(host.inventory(anyCall({ timeoutMs: 600_000 })));
    await control.setHostDown(uri, true);
    expect(await waiting).toBe("unreachable");
  });

  it("breaks the connections that are open, and none that is opened later", async () => {
    const uri = "sim+kvm://broken";
    const driver = createSimDriver({ databaseUrl: database.url });
    for (let n = 0; n < 20; n += 1) {
      const before = await connect(uri, driver);
      await control.breakConnections(uri);
      const after = await connect(uri, driver);
      expect(await outcomeOf(after.inventory(anyCall()))).toBe("ok");
      await eventually(async () => (await outcomeOf(before.inventory(anyCall()))) === "unreachable");
      expect(await outcomeOf(after.inventory(anyCall()))).toBe("ok");
      await after.close();
    }
  });

  it("cuts a host's power: guests are off, connections broken", async () => {
    const uri = "sim+kvm://power";
    const host = await connect(uri);
    const [one, two] = [await running(host), await running(host)];
    await host.pause?.pauseDomain(two.uuid, anyCall());
    await control.cutHostPower(uri);
    const { domains } = await (await connect(uri)).inventory(anyCall());
    expect(new Set(domains.map(({ uuid }) => uuid))).toEqual(new Set([one.uuid, two.uuid]));
    expect(domains.map(({ power, reason }) => [power, reason])).toEqual([
      ["off", "unknown"],
      ["off", "unknown"],
    ]);
  });

  it("fills the pool, so that nothing can be created, and frees it", async () => {
    const uri = "sim+kvm://full";
    const host = await connect(uri);
    const create = () => {
      const spec = { pool: "default", name: "v", format: "raw", capacityBytes: 4096 } as const;
      return outcomeOf(
        host.volumes?.createVolume(spec, anyCall()) ?? Promise.reject(new Error("no volumes")),
      );
    };
    await control.fillPool(uri);
    expect((await host.inventory(anyCall())).pools[0]?.availableBytes).toBe(0);
    expect(await create()).toBe("storage-full");
    await control.fillPool(uri, 0);
    expect(await create()).toBe("ok");
  });

  it("changes domains behind Drover's back", async () => {
    const uri = "sim+kvm://hands";
    const host = await connect(uri);
    const spec = await running(host);
    const power = async () => (await host.observeDomain(spec.uuid, anyCall()))?.power ?? null;
    const seen: unknown[] = [];
    for (const wanted of ["paused", "running", "off", "running"] as const) {
      await control.setDomainPower(uri, spec.uuid, wanted);
      seen.push(await power());
    }
    await control.crashDomain(uri, spec.uuid);
    seen.push(await power());
    await control.forgetDomain(uri, spec.uuid);
    seen.push(await power());
    expect(seen).toEqual(["paused", "running", "off", "running", "crashed", null]);
    await expect(control.crashDomain(uri, spec.uuid)).rejects.toThrow("has no domain");
  });

  it("makes a guest deaf, and hear again", async () => {
    const uri = "sim+kvm://deaf";
    const host = await connect(uri);
    const spec = await running(host);
    const power = async () => (await host.observeDomain(spec.uuid, anyCall()))?.power;
    await control.ignoreShutdown(uri, spec.uuid);
    await host.requestShutdown(spec.uuid, anyCall());
    expect(await power()).toBe("running");
    await control.ignoreShutdown(uri, spec.uuid, false);
    await host.requestShutdown(spec.uuid, anyCall());
    expect(await power()).toBe("off");
  });

  it("takes a host out of the world, which ends its connections and its domains", async () => {
    const uri = "sim+kvm://scrapped";
    const host = await connect(uri);
    await running(host);
    await control.removeHost(uri);
    expect(await outcomeOf(host.inventory(anyCall()))).toBe("unreachable");
    expect((await (await connect(uri)).inventory(anyCall())).domains).toEqual([]);
  });

  it("refuses what is no simulated host", async () => {
    await expect(control.setHostDown("qemu:///system", true)).rejects.toThrow(
      "not the URI of a simulated host",
    );
  });
});
