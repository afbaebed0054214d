import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { messageOf } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import { isDatabaseUnavailable } from "./database-errors.ts";
import { type Layout, makePrivate } from "./embedded-postgres-layout.ts";
import { DatabaseSetupError } from "./setup-error.ts";

/** Role and database of the embedded server; the role owns the cluster. */
const ROLE = "drover";
const DATABASE = "drover";

// Nothing of the service's environment reaches the server: it holds secrets.
const ENVIRONMENT = { PATH: "/usr/bin:/bin", LC_ALL: "C", TZ: "UTC" };

const MAX_LOG_BYTES = 16 * 1024 * 1024;
const LOG_TAIL_LINES = 12;
const POLL_MS = 20;
const CONNECT_TIMEOUT_MS = 5_000;
const REPORT_EVERY_MS = 5_000;

// Modest memory for a machine that runs VMs; connections for a handful of processes. Never TCP.
const SETTINGS: Readonly<Record<string, string>> = {
  listen_addresses: "",
  unix_socket_permissions: "0700",
  max_connections: "100",
  shared_buffers: "128MB",
  fsync: "on",
  jit: "off",
  // Prepared statements keep the plan that suited an empty table until the table is analyzed.
  autovacuum_naptime: "10s",
  timezone: "UTC",
  log_timezone: "UTC",
  log_min_messages: "warning",
  log_line_prefix: "%m [%p] ",
};

/** The URL of a database of the server whose socket lies in the directory. */
export function socketUrl(socketDirectory: string, database = DATABASE): string {
  return `postgresql://${ROLE}@localhost/${database}?host=${encodeURIComponent(socketDirectory)}`;
}

/** Makes the cluster. Under another name first, so that one broken off is made again rather than used. */
export function createCluster(layout: Layout, binaries: string): void {
  const unfinished = `${layout.cluster}.new`;
  makePrivate(unfinished, layout.account);
  const authentication = ["--auth-local=peer", "--auth-host=reject"];
  const locale = ["--encoding=UTF8", "--locale=C"];
  const result = spawnSync(
    join(binaries, "initdb"),
    ["-D", unfinished, "-U", ROLE, ...authentication, ...locale, "--no-instructions"],
    { ...identity(layout), env: ENVIRONMENT, cwd: "/", encoding: "utf8" },
  );
  if (result.status !== 0) {
    rmSync(unfinished, { recursive: true, force: true });
    const reason = result.error === undefined ? result.stderr.trim() : messageOf(result.error);
    throw new DatabaseSetupError(`Could not create the embedded database in ${layout.cluster}: ${reason}`, {
      cause: result.error,
    });
  }
  renameSync(unfinished, layout.cluster);
}

/** Starts the server in a session of its own: a Ctrl-C at our terminal must not reach it before we stop it in order. */
export function spawnServer(
  layout: Layout,
  binaries: string,
  socketDirectory: string,
  settings: Readonly<Record<string, string>>,
): ChildProcess {
  const files = writeAccessRules(layout);
  const all = { ...SETTINGS, ...files, unix_socket_directories: socketDirectory, ...settings };
  const args = Object.entries(all).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  if (existsSync(layout.log) && statSync(layout.log).size > MAX_LOG_BYTES)
    renameSync(layout.log, `${layout.log}.1`);
  const log = openSync(layout.log, "a", 0o600);
  try {
    const server = spawn(join(binaries, "postgres"), ["-D", layout.cluster, ...args], {
      ...identity(layout),
      env: ENVIRONMENT,
      cwd: "/",
      detached: true,
      stdio: ["ignore", log, log],
    });
    server.unref();
    return server;
  } finally {
    closeSync(log);
  }
}

/**
 * Who may connect: over the socket only, root and the server's own account, told by the kernel. The files lie
 * beside the cluster, for as root we write nothing into a directory of another account.
 */
function writeAccessRules({ home, account }: Layout): {
  readonly hba_file: string;
  readonly ident_file: string;
} {
  const files = { hba_file: join(home, "pg_hba.conf"), ident_file: join(home, "pg_ident.conf") };
  const names = new Set(["root", account.name ?? "root"]);
  writeFileSync(files.hba_file, `local all ${ROLE} peer map=${ROLE}\n`, { mode: 0o644 });
  writeFileSync(files.ident_file, [...names].map((name) => `${ROLE} "${name}" ${ROLE}\n`).join(""), {
    mode: 0o644,
  });
  return files;
}

function identity({ account }: Layout): { readonly uid?: number; readonly gid?: number } {
  return account.foreign ? { uid: account.uid, gid: account.gid } : {};
}

export interface ReadyOptions {
  readonly layout: Layout;
  readonly socketDirectory: string;
  /** False once the server's process has ended. */
  readonly isAlive: () => boolean;
  readonly timeoutSeconds: number;
  readonly logger: Log;
}

/**
 * Waits until the server takes connections, which after a crash may be after minutes of recovery. Throws when its
 * process ends first, with the last lines of its log, or when the socket turns out to be another cluster's.
 */
export async function waitUntilReady(options: ReadyOptions): Promise<void> {
  const { layout, socketDirectory, isAlive, timeoutSeconds, logger } = options;
  const started = performance.now();
  let reported = started;
  while (!(await answers(layout, socketDirectory))) {
    const now = performance.now();
    const log = `The end of ${layout.log}:\n${logTail(layout.log)}`;
    if (!isAlive()) throw new DatabaseSetupError(`The embedded Postgres did not start. ${log}`);
    if (now - started > timeoutSeconds * 1000)
      throw new DatabaseSetupError(
        `The embedded Postgres was not ready after ${timeoutSeconds} seconds. ${log}`,
      );
    if (now - reported > REPORT_EVERY_MS) {
      reported = now;
      logger.info(
        { seconds: Math.round((now - started) / 1000) },
        "waiting for the embedded Postgres to recover",
      );
    }
    await sleep(POLL_MS);
  }
}

/** True when the server of this cluster answers; false while there is none or it is not ready. */
async function answers(layout: Layout, socketDirectory: string): Promise<boolean> {
  const sql = "SELECT current_setting('data_directory') AS directory";
  const rows = await query<{ directory: string }>(socketUrl(socketDirectory, "postgres"), sql).catch(
    (error: unknown) => {
      // No socket yet, nobody behind it, still starting, or just ending.
      if (isDatabaseUnavailable(error)) return null;
      throw error;
    },
  );
  if (rows === null) return false;
  if (rows[0]?.directory === layout.cluster) return true;
  throw new DatabaseSetupError(
    `The server at ${socketDirectory} serves ${rows[0]?.directory ?? "nothing"}, not ${layout.cluster}. Was the data directory moved while it ran? Stop that server, then start again.`,
  );
}

/** Creates Drover's database in a new cluster. */
export async function ensureDatabase(socketDirectory: string): Promise<void> {
  const url = socketUrl(socketDirectory, "postgres");
  const found = await query(url, "SELECT FROM pg_database WHERE datname = $1", [DATABASE]);
  if (found.length === 0) await query(url, `CREATE DATABASE ${pg.escapeIdentifier(DATABASE)}`);
}

async function query<Row extends pg.QueryResultRow>(
  url: string,
  sql: string,
  values: string[] = [],
): Promise<readonly Row[]> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: CONNECT_TIMEOUT_MS });
  // A server that dies between an answer and the end would otherwise end this process too.
  client.on("error", () => undefined);
  try {
    await client.connect();
    return (await client.query<Row>(sql, values)).rows;
  } finally {
    await client.end();
  }
}

function logTail(path: string): string {
  if (!existsSync(path)) return "";
  return readFileSync(path, "utf8").trimEnd().split("\n").slice(-LOG_TAIL_LINES).join("\n");
}
