import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { removeEmbeddedPostgres } from "../../src/db/embedded-postgres.ts";
import type { Benchmark } from "./benchmark.ts";
import { percentile } from "./load.ts";
import { describeMachine } from "./machine.ts";

const STARTS = 5;
const GOAL_SECONDS = 3;
const MAIN = fileURLToPath(new URL("../../src/main.ts", import.meta.url));

/** From the start of the process to the first 200 of /readyz, the embedded Postgres started anew each time. */
export const warmStart: Benchmark = {
  name: "warm-start",
  title: "start of the service on a data directory that was used before, to readyz",
  async run(print) {
    for (const line of await describeMachine(null)) print(line);
    const dataDir = await mkdtemp(join(tmpdir(), "drover-bench-"));
    try {
      const first = await startOnce(dataDir);
      print(`first start, on an empty directory: ${first.toFixed(2)} s`);
      const seconds: number[] = [];
      for (let n = 0; n < STARTS; n++) seconds.push(await startOnce(dataDir));
      const p50 = percentile(seconds, 0.5);
      print(
        `${STARTS} warm starts: p50 ${p50.toFixed(2)} s, worst ${Math.max(...seconds).toFixed(2)} s ` +
          `(goal ${GOAL_SECONDS}, ratio ${(p50 / GOAL_SECONDS).toFixed(2)})`,
      );
    } finally {
      await removeEmbeddedPostgres({ dataDir });
      await rm(dataDir, { recursive: true, force: true });
    }
  },
};

async function startOnce(dataDir: string): Promise<number> {
  const port = await freePort();
  const started = performance.now();
  const child = spawn(process.execPath, [MAIN, "serve"], {
    env: {
      PATH: process.env["PATH"],
      DROVER_DATA_DIR: dataDir,
      DROVER_LISTEN: `127.0.0.1:${port}`,
      DROVER_LOG_LEVEL: "error",
    },
    stdio: ["ignore", "ignore", "inherit"],
  });
  try {
    while (!(await isReady(port))) {
      if (child.exitCode !== null) throw new Error(`the service ended with status ${child.exitCode}`);
      await sleep(20);
    }
    return (performance.now() - started) / 1000;
  } finally {
    await end(child);
  }
}

async function isReady(port: number): Promise<boolean> {
  try {
    return (await fetch(`http://127.0.0.1:${port}/readyz`)).ok;
  } catch {
    return false; // nobody listens yet
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  const exited = once(child, "exit");
  child.kill("SIGTERM");
  await exited;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  if (address === null || typeof address === "string") throw new Error("no port is free");
  return address.port;
}
