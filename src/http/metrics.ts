import type { FastifyInstance } from "fastify";
import { collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";

/** The figures of one process, in Prometheus' form. Made in main.ts, so that worker and API share one. */
export interface Metrics {
  /** For counters and histograms of other parts: `new Counter({ ..., registers: [metrics.registry] })`. */
  readonly registry: Registry;
  /** Adds a gauge whose values are read when somebody asks; each value with its labels. */
  gauge(
    name: string,
    help: string,
    labelNames: readonly string[],
    read: () => Promise<readonly GaugeValue[]>,
  ): void;
}

export interface GaugeValue {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** Makes a registry that holds the process' own figures: CPU, memory, event loop, file descriptors. */
export function createMetrics(): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  return {
    registry,
    gauge: (name, help, labelNames, read) => {
      const gauge: Gauge = new Gauge({
        name,
        help,
        labelNames,
        registers: [registry],
        collect: async () => {
          const values = await read();
          gauge.reset();
          for (const { labels, value } of values) gauge.set({ ...labels }, value);
        },
      });
    },
  };
}

// From a look-up by id to a `?wait=60`.
const DURATION_BUCKETS_SECONDS = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
];

/** Measures every request under its route's pattern, never its path: ids would make a series each. */
export function measureRequests(app: FastifyInstance, { registry }: Metrics): void {
  const durations = new Histogram({
    name: "drover_http_request_duration_seconds",
    help: "Time from the request to the end of its answer.",
    labelNames: ["method", "route", "status"],
    buckets: DURATION_BUCKETS_SECONDS,
    registers: [registry],
  });
  app.addHook("onResponse", (request, reply, done) => {
    const route = request.routeOptions.url ?? "none";
    const labels = { method: request.method, route, status: String(reply.statusCode) };
    durations.observe(labels, reply.elapsedTime / 1000);
    done();
  });
}
