import fc from "fast-check";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { HostConnection, HostDriver } from "../../src/hypervisors/hypervisor.ts";
import { type SimControl, simControl } from "../../src/hypervisors/sim/sim-control-store.ts";
import { createSimDriver } from "../../src/hypervisors/sim/sim-driver.ts";
import { newId, type VmId } from "../../src/lib/ids.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/database.ts";
import { anyCall, connectSim, outcomeOf, simDomain } from "../fixtures/sim-host.ts";
import * as model from "../fixtures/sim-model.ts";

let database: TestDatabase;
let control: SimControl;
let driver: HostDriver;

beforeAll(async () => {
  database = await createTestDatabase();
  control = await simControl(database.url);
  driver = createSimDriver({ databaseUrl: database.url });
});
afterAll(async () => {
  await control.close();
  await database.drop();
});

interface Real {
  readonly uri: string;
  readonly host: HostConnection;
  readonly ids: readonly VmId[];
  readonly foreign: string;
}

type Command = fc.AsyncCommand<model.ModelHost, Real>;

const MEMORY_GIB = 1;
const FOREIGN = "foreign";
/** Two VMs of ours, which can fill the host, and now and then a domain that is not ours. */
const targets = fc.constantFrom("0", "0", "0", "1", "1", "1", FOREIGN);
/** A guest that never starts shows little: starts come more often. */
const domainCalls = fc.constantFrom(...model.DOMAIN_CALLS, "startDomain", "startDomain", "startDomain");
const memories = fc.constantFrom(100, 500, 800);
const volumeNames = fc.constantFrom("a", "b");

function uuidOf(real: Real, id: string): VmId {
  return id === FOREIGN ? (real.foreign as VmId) : (real.ids[Number(id)] ?? newId<VmId>());
}

function callsOf(
  host: HostConnection,
): Record<model.DomainCall, (uuid: string) => Promise<void> | undefined> {
  return {
    startDomain: (uuid) => host.startDomain(uuid, anyCall()),
    requestShutdown: (uuid) => host.requestShutdown(uuid, anyCall()),
    forceOffDomain: (uuid) => host.forceOffDomain(uuid, anyCall()),
    removeDomain: (uuid) => host.removeDomain(uuid, anyCall()),
    pauseDomain: (uuid) => host.pause?.pauseDomain(uuid, anyCall()),
    resumeDomain: (uuid) => host.pause?.resumeDomain(uuid, anyCall()),
    rebootDomain: (uuid) => host.rebootDomain?.(uuid, anyCall()),
    resetDomain: (uuid) => host.resetDomain?.(uuid, anyCall()),
    saveDomain: (uuid) => host.saveDomain?.(uuid, anyCall()),
  };
}

function command(name: string, run: Command["run"]): Command {
  return {
    check: () => true,
    toString: () => name,
    async run(host, real) {
      await run(host, real);
      await compare(host, real);
    },
  };
}

async function compare(expected: model.ModelHost, real: Real): Promise<void> {
  const { domains, memoryFreeMib } = await real.host.inventory(anyCall());
  const seen = new Map(
    domains.map(({ uuid, power, memoryMib, installationId }) => [uuid, { power, memoryMib, installationId }]),
  );
  const wanted = [...expected.domains].map(([id, { power, memoryMib, ours }]) => {
    return [
      uuidOf(real, id),
      { power, memoryMib, installationId: ours ? simDomain().installationId : null },
    ] as const;
  });
  expect(seen).toEqual(new Map(wanted));
  expect(memoryFreeMib).toBe(expected.memoryMib - model.usedMib(expected));
}

const define = fc.tuple(targets, memories).map(([id, memoryMib]) =>
  command(`define ${id} with ${memoryMib} MiB`, async (expected, real) => {
    const spec = simDomain({ uuid: uuidOf(real, id), name: `vm-${id}`, memoryMib });
    expect(await outcomeOf(real.host.defineDomain(spec, anyCall()))).toBe(
      model.define(expected, id, memoryMib),
    );
  }),
);

const callDomain = fc.tuple(domainCalls, targets).map(([call, id]) =>
  command(`${call} ${id}`, async (expected, real) => {
    const sent = callsOf(real.host)[call](uuidOf(real, id)) ?? Promise.reject(new Error(`${call} is absent`));
    expect(await outcomeOf(sent)).toBe(model.callDomain(expected, call, id));
  }),
);

/** The answer is lost: the effect, or the refusal, is the same; called again, the call finds its own effect. */
const callTwice = fc.tuple(domainCalls, targets).map(([call, id]) =>
  command(`${call} ${id}, its answer lost`, async (expected, real) => {
    await control.loseNextAnswers(real.uri, call, 1);
    const outcome = model.callDomain(expected, call, id);
    const send = () =>
      callsOf(real.host)[call](uuidOf(real, id)) ?? Promise.reject(new Error(`${call} is absent`));
    expect(await outcomeOf(send())).toBe(outcome === "ok" ? "failed" : outcome);
    expect(await outcomeOf(send())).toBe(model.callDomain(expected, call, id));
  }),
);

const crash = targets.map((id) =>
  command(`crash ${id}`, async (expected, real) => {
    const power = expected.domains.get(id)?.power;
    if (power === "running" || power === "paused") await control.crashDomain(real.uri, uuidOf(real, id));
    model.crash(expected, id);
  }),
);

const deafen = fc.tuple(targets, fc.boolean()).map(([id, deaf]) =>
  command(`${deaf ? "deafen" : "undeafen"} ${id}`, async (expected, real) => {
    const domain = expected.domains.get(id);
    if (domain === undefined) return;
    domain.deaf = deaf;
    await control.ignoreShutdown(real.uri, uuidOf(real, id), deaf);
  }),
);

const readLog = targets.map((id) =>
  command(`read the log of ${id}`, async (expected, real) => {
    const ref = { uuid: uuidOf(real, id), name: `vm-${id}`, pool: "default" };
    const log = Buffer.from(
      (await real.host.consoleLog?.readConsoleLog(ref, 1 << 20, anyCall())) ?? [],
    ).toString();
    expect(log.match(/DROVER-GUEST-UP boot=/g)?.length ?? 0).toBe(expected.logs.get(id) ?? 0);
  }),
);

const deleteLog = targets.map((id) =>
  command(`delete the log of ${id}`, async (expected, real) => {
    const ref = { uuid: uuidOf(real, id), name: `vm-${id}`, pool: "default" };
    const deleted =
      real.host.consoleLog?.deleteConsoleLog(ref, anyCall()) ?? Promise.reject(new Error("no log"));
    expect(await outcomeOf(deleted)).toBe(id === FOREIGN ? "foreign" : "ok");
    if (id !== FOREIGN) expected.logs.delete(id);
  }),
);

const changeVolume = fc
  .tuple(fc.constantFrom("create", "grow", "delete"), volumeNames, fc.integer({ min: 1, max: 9 }))
  .map(([verb, name, capacityBytes]) =>
    command(`${verb} volume ${name} with ${capacityBytes} bytes`, async (expected, real) => {
      const { volumes } = real.host;
      if (volumes === undefined) throw new Error("no volumes");
      const ref = { pool: "default", name };
      const before = expected.volumes.get(name);
      if (verb === "create") {
        await volumes.createVolume({ ...ref, format: "raw", capacityBytes }, anyCall());
        expected.volumes.set(name, before ?? capacityBytes);
      } else if (verb === "delete") {
        await volumes.deleteVolume(ref, anyCall());
        expected.volumes.delete(name);
      } else {
        const outcome = await outcomeOf(volumes.growVolume(ref, capacityBytes, anyCall()));
        expect(outcome).toBe(before === undefined ? "not-found" : "ok");
        if (before !== undefined) expected.volumes.set(name, Math.max(before, capacityBytes));
      }
      const listed = await volumes.listVolumes("default", "", anyCall());
      const seen = new Map(listed.map((volume) => [volume.name, volume.capacityBytes]));
      expect(seen).toEqual(expected.volumes);
    }),
  );

const kinds = [
  define,
  callDomain,
  callDomain,
  callDomain,
  callTwice,
  crash,
  deafen,
  readLog,
  deleteLog,
  changeVolume,
];
const commands = fc.commands(kinds, { size: "max", maxCommands: 80 });

it("does after any sequence of calls what the contract's plain rules say", async () => {
  await fc.assert(
    fc.asyncProperty(commands, async (sequence) => {
      const uri = `sim+kvm://model-${newId<VmId>()}?memoryGib=${MEMORY_GIB}`;
      const host = await connectSim(driver, uri);
      const foreign = await control.addForeignDomain(uri, { name: FOREIGN, memoryMib: 100 });
      const expected = model.emptyModel(MEMORY_GIB * 1024);
      expected.domains.set(FOREIGN, {
        power: "running",
        memoryMib: 100,
        definedMib: 100,
        ours: false,
        deaf: false,
      });
      const real = { uri, host, foreign, ids: [newId<VmId>(), newId<VmId>()] };
      try {
        await fc.asyncModelRun(() => ({ model: expected, real }), sequence);
      } finally {
        await host.close();
        await control.removeHost(uri);
      }
    }),
    // Bounded by time as well: on a busy machine fewer sequences are tried.
    { numRuns: 60, interruptAfterTimeLimit: 30_000 },
  );
}, 180_000);
