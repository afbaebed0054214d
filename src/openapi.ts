import { pino } from "pino";
import { type AppDeps, buildApp } from "./app.ts";
import { createDatabase } from "./db/client.ts";
import { createMetrics } from "./http/metrics.ts";
import { systemClock } from "./lib/clock.ts";
import { DroverError } from "./lib/errors.ts";

/**
 * The API with nothing behind it: its routes can be looked at, and its document asked for. The database is never
 * connected to; parts that only requests use are left out.
 */
export async function buildHollowApp(): ReturnType<typeof buildApp> {
  const logger = pino({ level: "silent" });
  const nothing = () => Promise.reject(new DroverError("internal", "There is nothing behind this API."));
  return await buildApp({
    logger,
    database: createDatabase({ url: "postgresql://nowhere.invalid/none", maxConnections: 1, logger }),
    clock: systemClock,
    metrics: createMetrics(),
    readiness: [],
    operations: { read: nothing, waitForEnd: nothing, wake: () => undefined },
    kinds: {} as AppDeps["kinds"],
    feed: {} as AppDeps["feed"],
    hosts: {} as AppDeps["hosts"],
    capabilities: {} as AppDeps["capabilities"],
    hostImages: {} as AppDeps["hostImages"],
    images: {} as AppDeps["images"],
    volumes: {} as AppDeps["volumes"],
    volumeDownloads: nothing,
    vms: {} as AppDeps["vms"],
    consoles: {} as AppDeps["consoles"],
    tls: null,
  });
}

/** The OpenAPI document, made from the routes: openapi/openapi.json is this text. */
export async function writeOpenApi(): Promise<string> {
  const app = await buildHollowApp();
  try {
    const answer = await app.inject("/openapi.json");
    return `${JSON.stringify(answer.json(), null, 2)}\n`;
  } finally {
    await app.close();
  }
}
