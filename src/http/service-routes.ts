import { z } from "zod";
import { DroverError, messageOf } from "../lib/errors.ts";
import type { Metrics } from "./metrics.ts";
import type { Api } from "./route.ts";

/** One thing without which the process cannot do its work. */
export interface ReadinessCheck {
  readonly name: string;
  /** Resolves when all is well; rejects with the reason when not. */
  readonly check: () => Promise<void>;
}

export interface ServiceDeps {
  readonly metrics: Metrics;
  readonly readiness: readonly ReadinessCheck[];
}

const Health = z.strictObject({ status: z.literal("ok") }).meta({ id: "Health" });

const Readiness = z
  .strictObject({
    status: z.literal("ready"),
    checks: z.array(z.strictObject({ name: z.string(), ok: z.boolean() })),
  })
  .meta({ id: "Readiness", examples: [{ status: "ready", checks: [{ name: "database", ok: true }] }] });

/** What those who run the service ask: does it live, can it work, how does it do. */
export function registerServiceRoutes(api: Api, { metrics, readiness }: ServiceDeps): void {
  api.read({
    method: "GET",
    path: "/healthz",
    access: "public",
    operationId: "getHealth",
    tag: "Service",
    summary: "Tell whether the process lives",
    description: "Asks nothing of the database: a process that answers need not be started anew.",
    responses: { 200: Health },
    handle: async () => ({ status: 200, body: { status: "ok" as const } }),
  });

  api.read({
    method: "GET",
    path: "/readyz",
    access: "public",
    operationId: "getReadiness",
    tag: "Service",
    summary: "Tell whether the process can work",
    description: "503 with the outcome of each check in `details.checks` while it cannot.",
    responses: { 200: Readiness },
    errors: ["unavailable"],
    handle: async () => ({
      status: 200,
      body: { status: "ready" as const, checks: await runChecks(readiness) },
    }),
  });

  api.raw({
    method: "GET",
    path: "/metrics",
    access: "loopback",
    operationId: "getMetrics",
    tag: "Service",
    summary: "Get metrics",
    description:
      "In Prometheus' text form. Open on this machine; from elsewhere with a token that reaches everything.",
    responses: { 200: { description: "Metrics.", content: { "text/plain": { schema: z.string() } } } },
    handle: async () => ({
      status: 200,
      headers: { "content-type": metrics.registry.contentType },
      body: await metrics.registry.metrics(),
    }),
  });
}

// A probe that gets no answer within this time asks again.
const CHECK_TIMEOUT_MS = 5_000;

interface CheckResult {
  readonly name: string;
  readonly ok: boolean;
  readonly error?: string;
}

/** Runs every check; throws `unavailable` with all results when one fails. */
async function runChecks(checks: readonly ReadinessCheck[]): Promise<{ name: string; ok: boolean }[]> {
  const results = await Promise.all(checks.map(runCheck));
  const failed = results.filter(({ ok }) => !ok).map(({ name }) => name);
  if (failed.length === 0) return results.map(({ name, ok }) => ({ name, ok }));
  throw new DroverError("unavailable", `Not ready: ${failed.join(", ")}.`, { details: { checks: results } });
}

async function runCheck({ name, check }: ReadinessCheck): Promise<CheckResult> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    reject(new Error(`no answer within ${CHECK_TIMEOUT_MS / 1000} seconds`));
  }, CHECK_TIMEOUT_MS);
  try {
    await Promise.race([check(), late]);
    return { name, ok: true };
  } catch (error) {
    // Open to anybody, so no more than what a DroverError is meant to tell.
    const message =
      error instanceof DroverError ? messageOf(error) : "failed; the service's log has the details";
    return { name, ok: false, error: message };
  } finally {
    clearTimeout(timer);
  }
}
