import { afterAll, beforeAll, expect, it } from "vitest";
import { createNetwork, createVm, deleteVm, getNetwork, listVms } from "../../openapi/sdk/index.ts";
import {
  addHost,
  clientOf,
  ok,
  operationEnd,
  startTestService,
  type TestService,
} from "../fixtures/service.ts";

const CREATES = 200;
/** Ten fewer than are asked for. */
const ADDRESSES = CREATES - 10;
const LIMIT_MS = 300_000;

let service: TestService;
beforeAll(async () => {
  service = await startTestService();
});
afterAll(async () => {
  await service.stop();
});

interface Answer {
  readonly status: number | undefined;
  readonly code: string | undefined;
}

it("gives no address twice and refuses none that is free, whoever asks at once, through two processes", {
  timeout: LIMIT_MS,
}, async () => {
  const other = await service.startAnother({ DROVER_ROLES: "api" });
  const clients = [service.client, clientOf(other.url ?? "")];
  for (const host of ["a", "b", "c"])
    await addHost(service, host, `sim+kvm://${host}?cpus=256&memoryGib=256`);
  // The gateway lies in the range, and is given to nobody.
  const range = { start: "10.30.0.10", end: `10.30.0.${10 + ADDRESSES}` };
  const ipv4 = { cidr: "10.30.0.0/24", gateway: "10.30.0.20", range };
  const body = { name: "busy", kind: "nat" as const, ipv4 };
  await ok(createNetwork({ client: service.client, body }));
  const spec = {
    cpu: { count: 1 },
    memoryMib: 64,
    runPolicy: "stopped" as const,
    nics: [{ name: "eth0", network: "busy" }],
  };
  const answers = await Promise.all(
    Array.from({ length: CREATES }, async (_, n): Promise<Answer> => {
      const client = clients[n % clients.length] ?? service.client;
      const { response, error } = await createVm({ client, body: { name: `vm-${n}`, spec } });
      return { status: response?.status, code: (error as { readonly code?: string } | undefined)?.code };
    }),
  );
  const refused = answers.filter(({ status }) => status !== 202);
  expect(refused).toEqual(
    Array.from({ length: CREATES - ADDRESSES }, () => ({ status: 409, code: "addresses_exhausted" })),
  );
  const query = { pageSize: CREATES };
  const { items } = await ok(listVms({ client: service.client, query }));
  const given = items.flatMap(({ status }) => status.nics.flatMap(({ addresses }) => addresses));
  expect(given.length).toBe(ADDRESSES);
  expect(new Set(given).size).toBe(ADDRESSES);
  expect(given).not.toContain(ipv4.gateway);
  expect(new Set(items.map(({ status }) => status.nics[0]?.macAddress)).size).toBe(ADDRESSES);

  const deletes = items.map(async ({ id }) => {
    const { operation } = await ok(deleteVm({ client: service.client, path: { vm: id } }));
    return (await operationEnd(service, operation.id)).state;
  });
  expect(new Set(await Promise.all(deletes))).toEqual(new Set(["succeeded"]));
  const network = await ok(getNetwork({ client: service.client, path: { network: "busy" } }));
  expect(network.addressesReserved).toBe(0);
  const leases = await service.database.db.$queryRaw<unknown[]>`
    SELECT l FROM sim.network n, jsonb_array_elements(n.leases) l`;
  expect(leases).toEqual([]);
});
