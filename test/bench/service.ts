import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { readConfig } from "../../src/config.ts";
import { removeEmbeddedPostgres, startEmbeddedPostgres } from "../../src/db/embedded-postgres.ts";
import { startService } from "../../src/service.ts";

/** The service as `npm start` runs it: API and worker in this process, the embedded Postgres as it is shipped. */
export interface BenchService {
  readonly url: string;
  readonly token: string;
  readonly databaseUrl: string;
  readonly dataDir: string;
  /** A request with the token; throws for an answer that is no 2xx. */
  request<Body>(method: string, path: string, body?: unknown): Promise<Body>;
  /** Ends it and removes what it left. */
  stop(): Promise<void>;
}

const TOKEN = "bench-token-of-this-service";
const logger = pino({ level: "error" });

/** Starts it on an empty data directory. */
export async function startBenchService(
  settings: Readonly<Record<string, string>> = {},
  environment: Readonly<Record<string, string>> = {},
): Promise<BenchService> {
  const dataDir = await mkdtemp(join(tmpdir(), "drover-bench-"));
  // One more user of the server: its URL is asked for here, and it outlives a restart of the service.
  const server = await startEmbeddedPostgres({ dataDir, logger, settings });
  const config = readConfig({
    DROVER_DATA_DIR: dataDir,
    DROVER_LISTEN: "127.0.0.1:0",
    DROVER_ADMIN_TOKEN: TOKEN,
    DROVER_LOG_LEVEL: "error",
    ...environment,
  });
  const service = await startService({ config, logger });
  const url = service.url ?? "";
  return {
    ...{ url, token: TOKEN, databaseUrl: server.url, dataDir },
    async request<Body>(method: string, path: string, body?: unknown): Promise<Body> {
      const answer = await fetch(`${url}${path}`, {
        method,
        headers: { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await answer.text();
      if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
      return JSON.parse(text) as Body;
    },
    async stop() {
      await service.stop();
      await server.stop();
      await removeEmbeddedPostgres({ dataDir });
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}
