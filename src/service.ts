import { join } from "node:path";
import type { Logger } from "pino";
import { buildApp } from "./app.ts";
import type { Config } from "./config.ts";
import { createDatabase, type Database } from "./db/client.ts";
import { startEmbeddedPostgres } from "./db/embedded-postgres.ts";
import { ensureInstallation } from "./db/installation.ts";
import { type Listener, openListener } from "./db/listener.ts";
import { migrate } from "./db/migrate.ts";
import { pingDatabase } from "./db/transaction.ts";
import { createEventFeed } from "./events/event-feed.ts";
import { startEventSequencer } from "./events/event-sequencer.ts";
import { createHostReader } from "./hosts/host-reader.ts";
import type { HostServiceDeps } from "./hosts/host-service.ts";
import type { OperationAnswers } from "./http/change.ts";
import { createMetrics, type Metrics } from "./http/metrics.ts";
import type { ReadinessCheck } from "./http/service-routes.ts";
import { type DeclaredGuestType, declaredBy } from "./hypervisors/capabilities.ts";
import type { HostDriver } from "./hypervisors/hypervisor.ts";
import { createDrivers, driverForUri } from "./hypervisors/index.ts";
import { startCacheSweeper } from "./image-cache/cache-sweeper.ts";
import { type ImportAllowList, parseImportAllowList } from "./images/address-guard.ts";
import { type BuildTools, SYSTEM_TOOLS } from "./images/build/build-tools.ts";
import { imageBuildKind } from "./images/build/image-build.ts";
import { createImageBuilder } from "./images/build/image-builder.ts";
import { createContentCollector } from "./images/content-collector.ts";
import { createImageContents } from "./images/image-content.ts";
import { claimImageDirectory } from "./images/image-directory.ts";
import { createImageFiles } from "./images/image-files.ts";
import { imageImportKind } from "./images/image-import.ts";
import { systemClock } from "./lib/clock.ts";
import { messageOf } from "./lib/errors.ts";
import type { InstallationId } from "./lib/ids.ts";
import { createSecretBox, type SecretBox } from "./lib/secret-box.ts";
import { StartupError } from "./lib/startup-error.ts";
import { GIB } from "./lib/units.ts";
import type { CrashProbe } from "./operations/crash-points.ts";
import { startHistoryCleaner } from "./operations/history-cleaner.ts";
import type { KindRegistry } from "./operations/operation-kinds.ts";
import { getOperation } from "./operations/operation-store.ts";
import { createOperationWaits } from "./operations/operation-wait.ts";
import { wakeAfterChange } from "./operations/operation-wakes.ts";
import { loadSecretKey } from "./secret-key.ts";
import { listen, readTls } from "./service-listen.ts";
import { ensureAdminToken } from "./tokens/token-service.ts";
import { createVolumeDownloads } from "./vms/disks/volume-download.ts";
import { registerInventoryGauges } from "./vms/inventory-gauges.ts";
import { createConsoleLogReader } from "./vms/vm-console.ts";
import { startOrphanCollector } from "./volumes/orphan-collector.ts";
import { operationKinds, startWorker } from "./worker.ts";

/** A running Drover: API, worker, or both, by its configuration. */
export interface Service {
  /** Where the API listens; null without the role `api`. */
  readonly url: string | null;
  /** The secret of the first token, when one was made now. */
  readonly newAdminToken: string | null;
  /** Ends everything in order: no new requests, what runs ends or is given back, the database last. */
  stop(): Promise<void>;
}

export interface ServiceOptions {
  readonly config: Config;
  readonly logger: Logger;
  /** For harnesses that kill the process at a named instant. */
  readonly probe?: CrashProbe;
  /** What images are built with; the system's programs without. */
  readonly buildTools?: BuildTools;
}

type End = () => Promise<void> | void;

/** Starts everything that the configuration asks for. Rejects with nothing left running. */
export async function startService(options: ServiceOptions): Promise<Service> {
  const ends: End[] = [];
  let stopping: Promise<void> | undefined;
  const stop = () => (stopping ??= endAll(ends, options.logger));
  try {
    return { ...(await start(options, ends)), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** The last that was started ends first; one that fails does not keep the others. */
async function endAll(ends: readonly End[], logger: Logger): Promise<void> {
  for (const end of ends.toReversed()) {
    try {
      await end();
    } catch (error) {
      logger.error({ err: error }, "a part of the service did not end well");
    }
  }
}

// Enough for the API and for the operations under way, for each transaction is short. More only wait for one another in the
// server instead of here, and each plans and caches for itself.
const MAX_CONNECTIONS = 12;
const MAX_VIRTUAL_SIZE_BYTES = 64 * 1024 * GIB;
/** Room that images leave for the database and the host itself. */
const IMAGE_RESERVE_BYTES = GIB;

async function start(
  { config, logger, probe, buildTools = SYSTEM_TOOLS }: ServiceOptions,
  ends: End[],
): Promise<Omit<Service, "stop">> {
  const secretBox = createSecretBox(await loadSecretKey(config.dataDir, config.secretKey));
  const databaseUrl = await openDatabaseServer(config, logger, ends);
  await migrate({ url: databaseUrl, logger });
  const db = createDatabase({ url: databaseUrl, maxConnections: MAX_CONNECTIONS, logger });
  ends.push(() => db.close());
  const imageDirectory = join(config.dataDir, "images");
  const installationId = await claimInstallation(db, secretBox, imageDirectory);
  const newAdminToken = await ensureAdminToken(db, systemClock, config.adminToken ?? undefined);
  const wakes = await openListener({
    url: databaseUrl,
    logger,
    onSilence: () => {
      db.breakConnections();
    },
  });
  ends.push(() => wakes.close());

  const images = imageParts(config, db, logger, imageDirectory, buildTools);
  const { importKind, buildKind } = images;
  const kinds = operationKinds({
    ...{ installationId, images: images.contents, importKind, buildKind, secretBox },
    imageCacheBytes: imageCacheBytes(config),
    ...(probe === undefined ? {} : { probe }),
  });
  const drivers = createDrivers({ databaseUrl });
  const hosts: HostServiceDeps = { kinds, secretBox, installationId, ...lookUpDrivers(drivers) };
  const parts: Parts = {
    config,
    logger,
    db,
    databaseUrl,
    wakes,
    kinds,
    hosts,
    declared: declaredBy(drivers),
    images,
    metrics: createMetrics(),
  };
  const readiness: ReadinessCheck[] = [{ name: "database", check: () => pingDatabase(db) }];
  if (config.roles.worker) readiness.push(startWork(parts, ends, probe));
  const url = config.roles.api ? await startApi(parts, readiness, ends) : null;
  return { url, newAdminToken };
}

async function openDatabaseServer(
  { databaseUrl, dataDir }: Config,
  logger: Logger,
  ends: End[],
): Promise<string> {
  if (databaseUrl !== null) return databaseUrl;
  const server = await startEmbeddedPostgres({ dataDir, logger });
  ends.push(server.stop);
  return server.url;
}

/** Who we are; and whether this process has the same secret key and image directory as the others. */
async function claimInstallation(
  db: Database,
  box: SecretBox,
  imageDirectory: string,
): Promise<InstallationId> {
  return await db.transaction(async (tx) => {
    const { id, isNew } = await ensureInstallation(tx, box);
    await claimImageDirectory(imageDirectory, { installationId: id, isNewInstallation: isNew });
    return id;
  });
}

function imageParts(config: Config, db: Database, logger: Logger, directory: string, tools: BuildTools) {
  const files = createImageFiles({ directory, reserveBytes: IMAGE_RESERVE_BYTES });
  const limits = { maxBytes: config.maxImageGib * GIB, maxVirtualSizeBytes: MAX_VIRTUAL_SIZE_BYTES };
  const receiver = { files, limits, qemuImg: "qemu-img" };
  const allow = allowListOf(config);
  const builder = createImageBuilder({ directory, allow, tools, reserveBytes: IMAGE_RESERVE_BYTES });
  const collector = createContentCollector({ database: db, files, builder, log: logger });
  const arrival = { ...receiver, collect: collector.collect };
  const importKind = imageImportKind({ ...arrival, allow });
  const buildKind = imageBuildKind({ ...arrival, builder, atOnce: config.imageBuildsPerWorker });
  const contents = createImageContents(db, files);
  return { ...receiver, collector, allow, builder, importKind, buildKind, contents };
}

/** Throws StartupError that names the variable. */
function allowListOf({ imageImportAllow }: Config): ImportAllowList {
  try {
    return parseImportAllowList(imageImportAllow);
  } catch (cause) {
    throw new StartupError(`DROVER_IMAGE_IMPORT_ALLOW: ${messageOf(cause)}`, { cause });
  }
}

function imageCacheBytes({ hostImageCacheGib }: Config): number {
  return Math.floor(hostImageCacheGib * GIB);
}

/** The drivers, as hosts look for them: by a URI. */
function lookUpDrivers(drivers: readonly HostDriver[]): Pick<HostServiceDeps, "driverForUri" | "parseUri"> {
  return {
    driverForUri: (uri) => {
      const found = driverForUri(drivers, uri);
      return "error" in found ? null : found.driver;
    },
    parseUri: (uri) => {
      const found = driverForUri(drivers, uri);
      return "error" in found ? found : { driver: found.driver.name, ...found.parsed };
    },
  };
}

/** What API and worker share. */
interface Parts {
  readonly config: Config;
  readonly logger: Logger;
  readonly db: Database;
  readonly databaseUrl: string;
  readonly wakes: Listener;
  readonly kinds: KindRegistry;
  readonly hosts: HostServiceDeps;
  readonly declared: readonly DeclaredGuestType[];
  readonly images: ReturnType<typeof imageParts>;
  readonly metrics: Metrics;
}

/** Starts owning hosts, running operations, numbering events and cleaning up; says how to ask whether it can. */
function startWork(parts: Parts, ends: End[], probe: CrashProbe | undefined): ReadinessCheck {
  const { config, logger, db, databaseUrl, wakes, hosts, images, metrics } = parts;
  const sequencer = startEventSequencer({ url: databaseUrl, wakes, logger });
  ends.push(() => sequencer.stop());
  const cleaner = startHistoryCleaner({ db, logger, keepDays: config.retentionDays });
  ends.push(() => cleaner.stop());
  const orphans = startOrphanCollector({
    ...{ db, logger, kinds: parts.kinds, installationId: hosts.installationId },
    graceSeconds: config.orphanGraceSeconds,
    wake: () => {
      wakeAfterChange(wakes);
    },
  });
  ends.push(() => orphans.stop());
  images.collector.start();
  ends.push(() => images.collector.stop());
  const sweeper = startCacheSweeper({
    ...{ db, logger, wakes, kinds: hosts.kinds },
    limitBytes: imageCacheBytes(config),
  });
  ends.push(() => sweeper.stop());
  const { leaseSeconds, inventorySeconds, volumeScanSeconds, drainSeconds } = config;
  const worker = startWorker({
    ...{
      ...hosts,
      db,
      wakes,
      databaseUrl,
      logger,
      clock: systemClock,
      leaseSeconds,
      inventorySeconds,
      volumeScanSeconds,
      drainSeconds,
    },
    limits: { perHost: config.operationsPerHost, perWorker: config.operationsPerWorker },
    ...(probe === undefined ? {} : { probe }),
  });
  ends.push(() => worker.stop());
  metrics.gauge("drover_operations_running", "Operations that run in this process.", [], () =>
    Promise.resolve([{ labels: {}, value: worker.running() }]),
  );
  return { name: "worker", check: () => worker.check() };
}

/** Starts the API and returns its URL. */
async function startApi(parts: Parts, readiness: readonly ReadinessCheck[], ends: End[]): Promise<string> {
  const { config, logger, db, wakes, hosts, declared, images, kinds, metrics } = parts;
  const waits = createOperationWaits({ db, wakes, logger });
  ends.push(() => {
    waits.close();
  });
  const feed = createEventFeed({ db, wakes, logger });
  ends.push(() => {
    feed.close();
  });
  const reader = createHostReader({ db, ...hosts });
  ends.push(() => reader.close());
  registerInventoryGauges(metrics, db);
  const operations: OperationAnswers = {
    read: async (id) => (await getOperation(db, id))?.view ?? null,
    waitForEnd: (id, seconds, signal) => waits.waitForOperations([id], seconds, signal),
    wake: () => {
      wakeAfterChange(wakes);
    },
  };
  const app = await buildApp({
    ...{ logger, database: db, clock: systemClock, metrics, readiness, operations, kinds, feed },
    hosts: { ...hosts, db },
    hostImages: { db, kinds, limitBytes: imageCacheBytes(config) },
    capabilities: { declared },
    images: { ...images, database: db, kinds },
    volumes: { db, kinds, installationId: hosts.installationId, imageCacheBytes: imageCacheBytes(config) },
    volumeDownloads: createVolumeDownloads(db, reader.stream),
    vms: {
      ...{ db, kinds, declared, secretBox: hosts.secretBox, installationId: hosts.installationId },
      imageCacheBytes: imageCacheBytes(config),
      consoleLog: createConsoleLogReader(reader.read),
    },
    consoles: { read: reader.read, stream: reader.stream, publicUrl: config.publicUrl },
    tls: config.tls === null ? null : await readTls(config.tls),
  });
  ends.push(() => app.close());
  return await listen(app, config.listen);
}
