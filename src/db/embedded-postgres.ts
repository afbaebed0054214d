import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Log } from "../lib/log.ts";
import { EMBEDDED_MAJOR, embeddedBinaries } from "./embedded-postgres-binaries.ts";
import {
  type Layout,
  lockPaths,
  prepareLayout,
  refuseOtherMajor,
  removeLayout,
  socketDirectory,
  socketLock,
} from "./embedded-postgres-layout.ts";
import {
  isServerProcess,
  readPostmasterFile,
  stopServer,
  waitForOrphans,
} from "./embedded-postgres-process.ts";
import {
  createCluster,
  ensureDatabase,
  socketUrl,
  spawnServer,
  waitUntilReady,
} from "./embedded-postgres-server.ts";
import { superviseServer } from "./embedded-postgres-supervision.ts";
import { type FileLock, fileLock, tryFileLock } from "./file-lock.ts";
import { DatabaseSetupError } from "./setup-error.ts";

export interface EmbeddedPostgresOptions {
  /** Drover's data directory; the database lies in `postgres` below it. Made when missing. */
  readonly dataDir: string;
  readonly logger: Log;
  /** How long the server may take until it answers, in seconds; 300 without, for the recovery after a crash. */
  readonly startTimeoutSeconds?: number;
  /** Postgres settings on top of ours, such as `fsync: "off"` where the data is to be thrown away. */
  readonly settings?: Readonly<Record<string, string>>;
}

export interface EmbeddedPostgres {
  /** Connects over a private Unix socket; holds no secret. */
  readonly url: string;
  /** True when the server ran already: another process uses it, or one was killed that did. */
  readonly adopted: boolean;
  /** Ends this process's use; the last user stops the server. May be called twice. */
  readonly stop: () => Promise<void>;
}

// Starting waits for another process that starts or stops: a stop takes 80 seconds at worst.
const START_LOCK_SECONDS = 120;

/**
 * Runs the Postgres that npm brought, or joins the one that runs already for this data directory. Every process
 * that uses it holds a lock that the kernel drops with the process; whoever stops last stops the server. One that
 * dies while it is used is started again by one of them.
 *
 * Throws a DatabaseSetupError that says what to do: not installed on this platform, made by another major version,
 * another user's directory, does not start.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const paths = lockPaths(options.dataDir);
  const starting = await fileLock(paths.startLock, "exclusive", START_LOCK_SECONDS);
  try {
    const layout = prepareLayout(options.dataDir);
    if (existsSync(layout.cluster)) refuseOtherMajor(layout.cluster, EMBEDDED_MAJOR);
    const { sockets, adopted } = (await joinServer(layout, options)) ?? (await startServer(layout, options));
    await ensureDatabase(sockets);
    const using = await fileLock(layout.usersLock, "shared", START_LOCK_SECONDS);
    const supervision = superviseServer(
      { isRunning: () => runningServer(layout) !== null, startAgain: () => startAgain(layout, options) },
      options.logger,
    );
    let stopping: Promise<void> | undefined;
    return {
      url: socketUrl(sockets),
      adopted,
      stop: () => (stopping ??= supervision.stop().then(() => leave(layout, using, options.logger))),
    };
  } finally {
    starting.release();
  }
}

interface Started {
  readonly sockets: string;
  readonly adopted: boolean;
}

/** Null when no server of this cluster runs, or the one that does ends before it answers. */
async function joinServer(layout: Layout, options: EmbeddedPostgresOptions): Promise<Started | null> {
  const running = runningServer(layout);
  if (running === null) return null;
  const { pid, socketDirectory: sockets } = running;
  const isAlive = (): boolean => isServerProcess(pid, layout.cluster);
  try {
    await waitUntilReady({ ...waiting(layout, options), socketDirectory: sockets, isAlive });
  } catch (error) {
    if (isAlive()) throw error;
    return null;
  }
  options.logger.info({ pid, cluster: layout.cluster }, "joined the embedded Postgres that is running");
  return { sockets, adopted: true };
}

async function startServer(layout: Layout, options: EmbeddedPostgresOptions): Promise<Started> {
  const started = performance.now();
  const binaries = await embeddedBinaries(layout.home, layout.account);
  if (!existsSync(layout.cluster)) {
    options.logger.info({ cluster: layout.cluster }, "creating the embedded database");
    createCluster(layout, binaries);
  }
  await waitForOrphans(layout.cluster);
  const sockets = socketDirectory(layout);
  // What is left is a dead server's. Postgres would take a zombie, or a stranger with the same pid, for alive.
  for (const file of [join(layout.cluster, "postmaster.pid"), socketLock(sockets)])
    rmSync(file, { force: true });
  const server = spawnServer(layout, binaries, sockets, options.settings ?? {});
  const isAlive = (): boolean =>
    server.pid !== undefined && server.exitCode === null && server.signalCode === null;
  server.on("exit", (code, signal) => {
    options.logger.info({ code, signal, log: layout.log }, "the embedded Postgres ended");
  });
  server.on("error", (error) => {
    options.logger.error({ error: error.message }, "could not start the embedded Postgres");
  });
  try {
    await waitUntilReady({ ...waiting(layout, options), socketDirectory: sockets, isAlive });
  } catch (error) {
    if (server.pid !== undefined && isAlive()) await stopServer(server.pid, layout.cluster);
    throw error;
  }
  const ms = Math.round(performance.now() - started);
  options.logger.info({ pid: server.pid, cluster: layout.cluster, ms }, "started the embedded Postgres");
  return { sockets, adopted: false };
}

/** Every user of a server that died comes here: the start lock lets one of them start it, and never a second one. */
async function startAgain(layout: Layout, options: EmbeddedPostgresOptions): Promise<void> {
  const starting = tryFileLock(layout.startLock, "exclusive");
  if (starting === null) return;
  try {
    if (runningServer(layout) !== null) return;
    // A new one would be empty, and nobody would notice at first.
    if (!existsSync(layout.cluster))
      throw new DatabaseSetupError(`The embedded database is gone: ${layout.cluster} was removed.`);
    options.logger.warn(
      { cluster: layout.cluster, log: layout.log },
      "the embedded Postgres is gone; starting it again",
    );
    await startServer(layout, options);
  } finally {
    starting.release();
  }
}

function waiting(layout: Layout, { logger, startTimeoutSeconds = 300 }: EmbeddedPostgresOptions) {
  return { layout, logger, timeoutSeconds: startTimeoutSeconds };
}

function runningServer(layout: Layout): { readonly pid: number; readonly socketDirectory: string } | null {
  const file = readPostmasterFile(layout.cluster);
  return file !== null && isServerProcess(file.pid, layout.cluster) ? file : null;
}

/** Gives the use up, and stops the server when nobody else uses it. */
async function leave(layout: Layout, using: FileLock, logger: Log): Promise<void> {
  const stopping = await fileLock(layout.startLock, "exclusive", START_LOCK_SECONDS);
  try {
    using.release();
    const last = tryFileLock(layout.usersLock, "exclusive");
    if (last === null) return;
    try {
      const running = runningServer(layout);
      if (running === null) return;
      await stopServer(running.pid, layout.cluster);
      logger.info({ cluster: layout.cluster }, "stopped the embedded Postgres");
    } finally {
      last.release();
    }
  } finally {
    stopping.release();
  }
}

/**
 * Removes the database of a data directory with everything that belongs to it, also what lies elsewhere. Stops its
 * server first. Throws a DatabaseSetupError, and removes nothing, while a process uses it.
 */
export async function removeEmbeddedPostgres(options: { readonly dataDir: string }): Promise<void> {
  const { base, startLock, usersLock } = lockPaths(options.dataDir);
  const starting = await fileLock(startLock, "exclusive", START_LOCK_SECONDS);
  try {
    const unused = tryFileLock(usersLock, "exclusive");
    if (unused === null)
      throw new DatabaseSetupError(
        `The embedded Postgres of ${options.dataDir} is in use; stop Drover first.`,
      );
    unused.release();
    const layout = prepareLayout(options.dataDir);
    const running = runningServer(layout);
    if (running !== null) await stopServer(running.pid, layout.cluster);
    removeLayout(base);
  } finally {
    starting.release();
  }
}
