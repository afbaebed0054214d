import { readFile } from "node:fs/promises";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createVm, registerHost } from "../../openapi/sdk/index.ts";
import { ProblemSchema } from "../../src/http/problem.ts";
import { startApi, type TestApi } from "../fixtures/api.ts";
import { type NastyRequest, nastyRequests, type OpenApi } from "../fixtures/nasty-requests.ts";

const document = JSON.parse(
  await readFile(new URL("../../openapi/openapi.json", import.meta.url), "utf8"),
) as OpenApi;

const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.keys(methods).map((method) => ({ method, path })),
);

// A bounded run, the same each time; more runs and another seed by the environment find more.
const RUNS = Number(process.env["DROVER_FUZZ_RUNS"] ?? 25);
const SEED = Number(process.env["DROVER_FUZZ_SEED"] ?? 7420);

let api: TestApi;

beforeAll(async () => {
  api = await startApi();
  const body = { name: "host", uri: "sim+kvm://host?cpus=64&memoryGib=64" };
  expect((await registerHost({ client: api.client, body, query: { wait: 60 } })).error).toBeUndefined();
  const spec = { cpu: { count: 1 }, memoryMib: 64, disks: [{ name: "root", sizeGib: 1 }] };
  const vm = { name: "vm", spec };
  expect((await createVm({ client: api.client, body: vm, query: { wait: 60 } })).error).toBeUndefined();
});

afterAll(async () => {
  await api.close();
});

/** What a refused request must not change: the rows of everything that a client can make. */
async function inventory(): Promise<string> {
  const { db } = api.database;
  const [tokens, hosts, images, vms, keys, operationIds] = await Promise.all([
    db.apiToken.findMany({ select: { id: true, revokedAt: true }, orderBy: { id: "asc" } }),
    db.host.findMany({
      select: { id: true, name: true, generation: true, labels: true },
      orderBy: { id: "asc" },
    }),
    db.image.findMany({ select: { id: true, name: true, generation: true }, orderBy: { id: "asc" } }),
    db.vm.findMany({
      select: { id: true, name: true, generation: true, spec: true },
      orderBy: { id: "asc" },
    }),
    db.idempotencyKey.count(),
    db.operation.findMany({
      where: { actor: { not: "system" } },
      select: { id: true },
      orderBy: { id: "asc" },
    }),
  ]);
  return JSON.stringify({ tokens, hosts, images, vms, keys, operationIds });
}

async function send({ method, path, headers, body }: NastyRequest): Promise<Response> {
  const withBody = body === undefined || method === "GET" ? {} : { body };
  return await api.fetch(path, { method, headers, ...withBody });
}

describe("nonsense", () => {
  test.each(operations)(
    "to $method $path is a problem, never a 5xx, and changes nothing",
    async ({ method, path }) => {
      await fc.assert(
        fc.asyncProperty(nastyRequests(document, method, path), async (request) => {
          const before = await inventory();
          const response = await send(request);
          const text = await response.text();
          expect(response.status, text).toBeLessThan(500);
          if (response.status < 400) return;
          expect(response.headers.get("content-type")).toContain("application/problem+json");
          expect(ProblemSchema.parse(JSON.parse(text)).status).toBe(response.status);
          expect(await inventory()).toBe(before);
        }),
        { numRuns: RUNS, seed: SEED, endOnFailure: true },
      );
    },
  );
});
