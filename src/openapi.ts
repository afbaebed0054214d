import { pino } from "pino";
import { type AppDeps, buildApp } from "./app.ts";
import { createDatabase } from "./db/client.ts";
import { createMetrics } from "./http/metrics.ts";
import { systemClock } from "./lib/clock.ts";
import { DroverError } from "./lib/errors.ts";

/**
 * The OpenAPI document, made by building the API without anything behind it: openapi/openapi.json is this text.
 * The database is never connected to, for no route is called but the document's.
 */
export async function writeOpenApi(): Promise<string> {
  const logger = pino({ level: "silent" });
  const nothing = () => Promise.reject(new DroverError("internal", "Only the document is made here."));
  const app = await buildApp({
    logger,
    database: createDatabase({ url: "postgresql://nowhere.invalid/none", maxConnections: 1, logger }),
    clock: systemClock,
    metrics: createMetrics(),
    readiness: [],
    operations: { read: nothing, waitForEnd: nothing, wake: () => undefined },
    // Parts that only requests use.
    kinds: {} as AppDeps["kinds"],
    feed: {} as AppDeps["feed"],
    hosts: {} as AppDeps["hosts"],
    images: {} as AppDeps["images"],
    vms: {} as AppDeps["vms"],
    tls: null,
  });
  try {
    const answer = await app.inject("/openapi.json");
    return `${JSON.stringify(answer.json(), null, 2)}\n`;
  } finally {
    await app.close();
  }
}
