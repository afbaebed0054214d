import { afterAll, beforeAll, expect, test } from "vitest";
import { buildHollowApp } from "../../src/openapi.ts";
import { startApi, type TestApi } from "../fixtures/api.ts";

/** Everything that answers without a token; /metrics does so on this machine only. */
const PUBLIC = new Set([
  ...["GET /healthz", "HEAD /healthz", "GET /readyz", "HEAD /readyz", "GET /metrics"],
  ...["GET /openapi.json", "HEAD /openapi.json"],
  // Open to whoever has a console's ticket, which is asked for with a token.
  ...["GET /v1/consoles/:ticket", "GET /console/:ticket", "HEAD /console/:ticket"],
  // The files of its pages: Fastify prints a wildcard without what stands before it, and there is only this one.
  ...["GET *", "HEAD *"],
  ...[
    "GET /docs",
    "HEAD /docs",
    "GET /docs/",
    "HEAD /docs/",
    "GET /docs/js/scalar.js",
    "HEAD /docs/js/scalar.js",
  ],
]);

let api: TestApi;
let routes: readonly string[];

beforeAll(async () => {
  api = await startApi();
  const app = await buildHollowApp();
  await app.ready();
  routes = routesOf(app.printRoutes({ commonPrefix: false }));
  await app.close();
});

afterAll(async () => {
  await api.close();
});

/** `GET /v1/vms/:vm` and so on, from the tree that Fastify prints: four columns a level. */
function routesOf(tree: string): string[] {
  const path: string[] = [];
  return tree.split("\n").flatMap((line) => {
    const match = /^([│ ]*)[├└]── (\S+)(?: \((.*)\))?$/.exec(line);
    if (match === null) return [];
    const [, indent = "", part = "", methods = ""] = match;
    path.splice(indent.length / 4, Infinity, part);
    return methods.split(", ").map((method) => `${method} ${path.join("")}`);
  });
}

test("the list of routes is the whole list", () => {
  expect(routes).toEqual(
    expect.arrayContaining(["POST /v1/vms", "GET /v1/vms/:vm", "POST /v1/vms/:vm/start"]),
  );
  expect(routes.length).toBeGreaterThan(40);
  expect([...PUBLIC].filter((route) => !routes.includes(route))).toEqual([]);
});

test("no route but the public ones answers without a token", async () => {
  const open: string[] = [];
  for (const route of routes) {
    const [method = "", path = ""] = route.split(" ");
    const plain = path.replace("*", "/console/assets/page/serial.mjs");
    const url = `${api.url}${plain.replaceAll(/:[A-Za-z]+/g, "0199f3a2-7c11-7e02-9f1b-2b7d1a3c5e77")}`;
    const response = await fetch(url, { method, redirect: "manual" });
    await response.arrayBuffer();
    if (response.status !== 401) open.push(route);
  }
  expect(new Set(open)).toEqual(PUBLIC);
});

test("a proxy on this machine does not make the metrics public", async () => {
  const direct = await fetch(`${api.url}/metrics`);
  expect(direct.status).toBe(200);
  expect(await direct.text()).toContain("drover_http_request_duration_seconds");
  const proxied = await fetch(`${api.url}/metrics`, { headers: { "x-forwarded-for": "192.0.2.1" } });
  expect(proxied.status).toBe(401);
  const withToken = await api.fetch("/metrics", { headers: { "x-forwarded-for": "192.0.2.1" } });
  expect(withToken.status).toBe(200);
});

test("the page at /docs loads nothing from anywhere else", async () => {
  const page = await fetch(`${api.url}/docs/`);
  expect(page.status).toBe(200);
  const policy = page.headers.get("content-security-policy") ?? "";
  expect(policy).toContain("default-src 'none'");
  expect(policy).not.toMatch(/https?:/);
  const sources = [...(await page.text()).matchAll(/(?:src|href)="([^"]+)"/g)].map(
    ([, source]) => source ?? "",
  );
  expect(sources.length).toBeGreaterThan(0);
  for (const source of sources) {
    const url = new URL(source, `${api.url}/docs/`);
    expect(url.origin).toBe(api.url);
    expect((await fetch(url)).status).toBe(200);
  }
});

test("health and readiness say how the service is", async () => {
  expect(await (await fetch(`${api.url}/healthz`)).json()).toEqual({ status: "ok" });
  await expect.poll(async () => (await fetch(`${api.url}/readyz`)).status, { timeout: 30_000 }).toBe(200);
  const ready = (await (await fetch(`${api.url}/readyz`)).json()) as {
    checks: { name: string; ok: boolean }[];
  };
  expect(ready.checks).toEqual(expect.arrayContaining([{ name: "database", ok: true }]));
});
