import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Client } from "../../openapi/sdk/client/index.ts";
import { createVm } from "../../openapi/sdk/index.ts";
import { allocatable } from "../../src/hosts/host-record.ts";
import { memoryWithOverhead, type PlacementHost, type Size } from "../../src/vms/placement.ts";
import { placementHosts } from "../../src/vms/placement-store.ts";
import { addHost, clientOf, startTestService, type TestService } from "../fixtures/service.ts";

const CREATES = 200;
const LOOK_PAUSE_MS = 10;
// Seconds, but for a machine that is busy with other tests.
const LIMIT_MS = 300_000;
const DISKS = [{ name: "root", sizeGib: 1 }];

let service: TestService;
beforeEach(async () => {
  service = await startTestService();
});
afterEach(async () => {
  await service.stop();
});

/** What each host has left: less than nothing where it is overfilled. */
function roomOf(host: PlacementHost): Size {
  if (host.capacity === null) throw new Error(`the capacity of ${host.name} is unknown`);
  const total = allocatable(host.capacity, host.hypervisor);
  return {
    cpuCount: total.cpuCount - host.reservedCpuCount,
    memoryMib: total.memoryMib - host.reservedMemoryMib,
  };
}

function fits(size: Size, room: Size): boolean {
  return size.cpuCount <= room.cpuCount && size.memoryMib <= room.memoryMib;
}

/** Looks at the reservations again and again until it is stopped; says which hosts it saw overfilled. */
function watchForOverfilled(): { stop(): Promise<readonly string[]> } {
  const overfilled: string[] = [];
  const stopped = new AbortController();
  const watching = (async () => {
    while (!stopped.signal.aborted) {
      for (const host of await placementHosts(service.database.db))
        if (!fits({ cpuCount: 0, memoryMib: 0 }, roomOf(host)))
          overfilled.push(`${host.name}: ${JSON.stringify(roomOf(host))}`);
      await sleep(LOOK_PAUSE_MS);
    }
  })();
  return {
    async stop() {
      stopped.abort();
      await watching;
      return overfilled;
    },
  };
}

interface Answer {
  readonly size: Size;
  readonly status: number | undefined;
  readonly problem: {
    readonly code?: string;
    readonly retry?: string;
    readonly detail?: string;
    readonly details?: { readonly hosts?: readonly { readonly host: string; readonly reason: string }[] };
  } | null;
}

/** Asks for all of them at once, each VM by the next client. Sizes are those of the guests. */
async function createAll(clients: readonly Client[], guests: readonly Size[]): Promise<Answer[]> {
  const asked = guests.map(async ({ cpuCount, memoryMib }, index): Promise<Answer> => {
    const client = clients[index % clients.length] ?? service.client;
    const spec = { cpu: { count: cpuCount }, memoryMib, disks: DISKS, runPolicy: "stopped" as const };
    const size = { cpuCount, memoryMib: memoryWithOverhead(memoryMib) };
    const { response, error } = await createVm({ client, body: { name: `vm-${index}`, spec } });
    return { size, status: response?.status, problem: (error ?? null) as Answer["problem"] };
  });
  return await Promise.all(asked);
}

/** Every refusal says of each host why not, and nothing else goes wrong. */
function expectOrderly(answers: readonly Answer[], hosts: readonly string[]): void {
  for (const { status, problem } of answers.filter((answer) => answer.status !== 202)) {
    expect([status, problem?.code, problem?.retry]).toEqual([409, "no_placement", "afterCapacity"]);
    const reasons = problem?.details?.hosts ?? [];
    expect(reasons.map(({ host }) => host).toSorted()).toEqual(hosts);
    for (const { reason } of reasons) expect(["notEnoughCpu", "notEnoughMemory"]).toContain(reason);
  }
}

describe(`${CREATES} VMs asked for at once`, { timeout: LIMIT_MS }, () => {
  it("fill each host to its last CPU and MiB and not beyond, and the last one that fits is placed", async () => {
    // Two hosts run out of memory, the third of CPUs (each is promised four times): all but one find a place.
    await addHost(service, "h1", "sim+kvm://h1?cpus=64&memoryGib=18");
    await addHost(service, "h2", "sim+kvm://h2?cpus=64&memoryGib=24");
    await addHost(service, "h3", "sim+kvm://h3?cpus=17&memoryGib=64");
    const guest = { cpuCount: 1, memoryMib: 256 };
    const size = { ...guest, memoryMib: memoryWithOverhead(guest.memoryMib) };
    const places = (await placementHosts(service.database.db)).map((host) => {
      const room = roomOf(host);
      return Math.min(Math.floor(room.cpuCount / size.cpuCount), Math.floor(room.memoryMib / size.memoryMib));
    });
    expect(places.reduce((a, b) => a + b)).toBe(CREATES - 1);
    const watch = watchForOverfilled();
    const answers = await createAll(
      [service.client],
      Array.from({ length: CREATES }, () => guest),
    );
    expect(await watch.stop()).toEqual([]);
    expectOrderly(answers, ["h1", "h2", "h3"]);
    expect(answers.filter(({ status }) => status === 202)).toHaveLength(CREATES - 1);
    expect(await service.database.db.reservation.count()).toBe(CREATES - 1);
    for (const host of await placementHosts(service.database.db))
      expect(fits(size, roomOf(host))).toBe(false);
  });

  it("of many sizes, through two processes: what is refused fits nowhere", async () => {
    const other = await service.startAnother({ DROVER_ROLES: "api" });
    const names = ["h1", "h2", "h3", "h4"];
    for (const name of names) await addHost(service, name, `sim+kvm://${name}?cpus=24&memoryGib=28`);
    const guests = Array.from({ length: CREATES }, (_, index) => ({
      cpuCount: 1 + ((index * 7) % 4),
      memoryMib: [128, 256, 512, 1024, 2048][(index * 3) % 5] ?? 128,
    }));
    const watch = watchForOverfilled();
    const answers = await createAll([service.client, clientOf(other.url ?? "")], guests);
    expect(await watch.stop()).toEqual([]);
    expectOrderly(answers, names);
    const refused = answers.filter(({ status }) => status === 409);
    expect(refused.length).toBeGreaterThan(0);
    // Nothing was given back meanwhile, so what did not fit then does not fit now.
    const rooms = (await placementHosts(service.database.db)).map(roomOf);
    for (const { size } of refused) expect(rooms.filter((room) => fits(size, room))).toEqual([]);
    expect(await service.database.db.reservation.count()).toBe(CREATES - refused.length);
  });
});
