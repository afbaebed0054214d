import { Worker } from "node:worker_threads";

/** One request of a load. */
export interface LoadRequest {
  readonly method: string;
  readonly path: string;
  readonly body?: unknown;
}

export interface LoadPlan {
  readonly url: string;
  readonly token: string;
  /** How many requests are under way at once, each on a connection that is kept. */
  readonly atOnce: number;
  /** Sent in this order; each as soon as one of those before it is answered. */
  readonly requests: readonly LoadRequest[];
}

export interface LoadResult {
  /** From the first request to the last answer. */
  readonly seconds: number;
  /** Of each answer in the order of the requests, in milliseconds. */
  readonly latenciesMs: readonly number[];
  /** How many answers had which status. */
  readonly statuses: Readonly<Record<number, number>>;
  /** An answer that was no 2xx, if there was one. */
  readonly refused: string | null;
}

/** Sends a load from a thread of its own, so that the service's event loop bears the service only. */
export function sendLoad(plan: LoadPlan): Promise<LoadResult> {
  const { promise, resolve, reject } = Promise.withResolvers<LoadResult>();
  const thread = new Worker(new URL("./load-thread.ts", import.meta.url), { workerData: plan });
  thread.once("message", resolve);
  thread.once("error", reject);
  thread.once("exit", () => {
    reject(new Error("the load's thread ended without a result"));
  });
  return promise;
}

/** The value below which this share of the values lies. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}
