import { afterAll, beforeAll, expect, it } from "vitest";
import {
  createVm,
  deleteVm,
  listOperations,
  refreshHost,
  startVm,
  stopVm,
  updateVm,
} from "../../openapi/sdk/index.ts";
import { addHost, ok, startTestService, type TestService } from "../fixtures/service.ts";

let service: TestService;
beforeAll(async () => {
  service = await startTestService();
});
afterAll(async () => {
  await service.stop();
});

const HOSTS = ["h1", "h2", "h3"] as const;
const VMS = 24;

interface Answered {
  readonly response?: Response | undefined;
  readonly data?: unknown;
  readonly error?: unknown;
}

/** What a request may be told while others change the same VM. */
function expectOrderly({ response, error }: Answered): void {
  const { code } = (error ?? {}) as { readonly code?: string };
  const wanted = response?.status === 404 || response?.status === 409 || (response?.ok ?? false);
  expect(wanted, `${response?.status ?? 0} ${code ?? ""} ${JSON.stringify(error)}`).toBe(true);
}

it("answers every request in order while many change the same VMs and hosts, and ends every operation", async () => {
  const { client, database } = service;
  // Too small for all of them.
  for (const name of HOSTS) await addHost(service, name, `sim+kvm://${name}?cpus=8&memoryGib=3`);
  const lives = Array.from({ length: VMS }, async (_, index) => {
    const name = `vm-${index}`;
    const path = { vm: name };
    const disks = [{ name: "root", sizeGib: 1 }];
    expectOrderly(
      await createVm({ client, body: { name, spec: { cpu: { count: 1 }, memoryMib: 256, disks } } }),
    );
    const changes: Promise<Answered>[] = [
      updateVm({ client, path, body: { spec: { memoryMib: 512 } } }),
      updateVm({ client, path, body: { labels: { a: String(index) } } }),
      stopVm({ client, path, body: {} }),
      updateVm({ client, path, body: { spec: { runPolicy: "running", memoryMib: 128 } } }),
      refreshHost({ client, path: { host: HOSTS[index % HOSTS.length] ?? "h1" } }),
      startVm({ client, path }),
      stopVm({ client, path, body: { mode: "force" } }),
      deleteVm({ client, path }),
      deleteVm({ client, path }),
    ];
    for (const answer of await Promise.all(changes)) expectOrderly(answer);
    expectOrderly(await deleteVm({ client, path }));
  });
  await Promise.all(lives);
  await expect
    .poll(() => database.db.operation.count({ where: { endedAt: null } }), { timeout: 50_000, interval: 200 })
    .toBe(0);
  const left = [
    await database.db.vm.count(),
    await database.db.reservation.count(),
    await database.db.volume.count(),
    ...(await database.db.$queryRaw<{ count: number }[]>`
      SELECT count(*)::int AS count FROM sim.domain UNION ALL SELECT count(*)::int FROM sim.volume`),
  ];
  expect(left).toEqual([0, 0, 0, { count: 0 }, { count: 0 }]);
  const { items } = await ok(listOperations({ client, query: { state: ["attention"], pageSize: 100 } }));
  expect(items).toEqual([]);
  const states = await database.db.$queryRaw<{ deadlocks: number }[]>`
    SELECT deadlocks::int AS deadlocks FROM pg_stat_database WHERE datname = current_database()`;
  expect(states).toEqual([{ deadlocks: 0 }]);
  const mistakes = service.logged.filter(({ level }) => Number(level) >= 50);
  expect(mistakes).toEqual([]);
});
