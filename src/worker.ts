import type { Database } from "./db/client.ts";
import { type Listener, openListener } from "./db/listener.ts";
import { hostKinds } from "./hosts/host-kinds.ts";
import { startHostOwnership } from "./hosts/host-ownership.ts";
import type { HostServiceDeps } from "./hosts/host-service.ts";
import { bringHostImageKind, evictHostImageKind } from "./image-cache/host-image-kinds.ts";
import type { BuildInput } from "./images/build/image-build.ts";
import type { ImageContents } from "./images/image-content.ts";
import type { ImportInput } from "./images/image-import.ts";
import type { Clock } from "./lib/clock.ts";
import { toErrorBody } from "./lib/errors.ts";
import type { InstallationId } from "./lib/ids.ts";
import type { Log } from "./lib/log.ts";
import type { SecretBox } from "./lib/secret-box.ts";
import { networkKinds } from "./networks/network-kinds.ts";
import type { CrashProbe } from "./operations/crash-points.ts";
import type { Wakes } from "./operations/operation-channels.ts";
import { operationError } from "./operations/operation-errors.ts";
import { type AnyOperationKind, anyKind, type OperationKind } from "./operations/operation-kind.ts";
import { createKindRegistry, type KindRegistry } from "./operations/operation-kinds.ts";
import { createOperationRunner, type RunnerLimits } from "./operations/operation-runner.ts";
import { startWorkerLease, type WorkerLease } from "./operations/worker-lease.ts";
import { vmActions } from "./vms/actions/index.ts";
import { attachDiskKind } from "./vms/disks/attach-disk.ts";
import { detachDiskKind } from "./vms/disks/detach-disk.ts";
import { volumeResizeKind } from "./vms/disks/resize-volume.ts";
import { vmCreateKind } from "./vms/vm-create.ts";
import { vmDeleteKind } from "./vms/vm-delete.ts";
import { vmNicKinds } from "./vms/vm-nic-kinds.ts";
import { vmObservations } from "./vms/vm-reconciler.ts";
import { volumeCreateKind, volumeDeleteKind } from "./volumes/volume-kinds.ts";

export interface WorkerDeps extends HostServiceDeps {
  readonly databaseUrl: string;
  readonly db: Database;
  /** The process's own: what its API queues wakes its worker without a way through the database, and back. */
  readonly wakes: Wakes;
  readonly logger: Log;
  readonly clock: Clock;
  readonly leaseSeconds: number;
  readonly inventorySeconds: number;
  /** Between two looks into the pools of a host. */
  readonly volumeScanSeconds: number;
  /** How long a host that is handed over waits for the steps that run there. */
  readonly drainSeconds: number;
  readonly limits: Pick<RunnerLimits, "perHost" | "perWorker">;
  readonly probe?: CrashProbe;
}

/** The part of the process that owns hosts and runs operations. */
export interface Worker {
  /** Resolves while it can work; rejects with the reason while it cannot. */
  check(): Promise<void>;
  /** How many operations run here. */
  running(): number;
  /** Takes nothing new, lets what runs end for `drainSeconds`, and gives everything back. */
  stop(): Promise<void>;
}

interface Life {
  readonly lease: WorkerLease;
  running(): number;
  stop(): Promise<void>;
  /** The lease is lost: whatever is held belongs to others. */
  drop(): Promise<void>;
}

const AGAIN_MS = 1_000;

/**
 * Starts a worker and keeps one: a lost lease (the database was away, the process was frozen) ends everything that
 * hung on it, and a new worker with a new lease begins.
 */
export function startWorker(deps: WorkerDeps): Worker {
  let life: Life | null = null;
  let stopping = false;
  let timer: NodeJS.Timeout | undefined;
  let beginning: Promise<void> = Promise.resolve();

  const begin = async (): Promise<void> => {
    try {
      const begun = await beginLife(deps, (reason) => {
        deps.logger.warn({ reason }, "this worker lost its lease; it begins anew");
        life = null;
        beginning = begun.drop().then(() => (stopping ? undefined : begin()));
      });
      life = begun;
    } catch (error) {
      deps.logger.warn({ err: error }, "a worker could not begin; trying again");
      if (!stopping) {
        timer = setTimeout(() => {
          beginning = begin();
        }, AGAIN_MS);
      }
    }
  };
  beginning = begin();

  return {
    async check() {
      await beginning;
      if (life?.lease.isHeld() !== true) throw new Error("the worker has no lease at this moment");
    },
    running: () => life?.running() ?? 0,
    async stop() {
      stopping = true;
      clearTimeout(timer);
      await beginning;
      await life?.stop();
      // The lease may have been lost in between.
      await beginning;
    },
  };
}

async function beginLife(deps: WorkerDeps, onLost: (reason: string) => void): Promise<Life> {
  const listener = await openListener({ url: deps.databaseUrl, logger: deps.logger });
  try {
    const { db, logger, clock, leaseSeconds } = deps;
    const lease = await startWorkerLease({ db, listener, logger, clock, leaseSeconds });
    return liveWith(deps, listener, lease, onLost);
  } catch (error) {
    await listener.close();
    throw error;
  }
}

function liveWith(
  deps: WorkerDeps,
  listener: Listener,
  lease: WorkerLease,
  onLost: (reason: string) => void,
): Life {
  const { db, wakes, logger, clock, kinds, drainSeconds, limits } = deps;
  const hosts = startHostOwnership({
    ...deps,
    workerId: lease.workerId,
    work: {
      runningOn: (hostId) => runner.runningOn(hostId),
      release: (hostId, handOver) => runner.releaseHost(hostId, { drainSeconds, handOver }),
    },
    sink: vmObservations,
    errorBodyOf: (error) => toErrorBody(operationError(error)),
    onStateChange: () => {
      runner.wake();
    },
  });
  const runner = createOperationRunner({
    ...{ db, logger, clock, kinds, hosts, lease, limits, wakes },
    ...(deps.probe === undefined ? {} : { probe: deps.probe }),
  });
  lease.onLost(onLost);
  return {
    lease,
    running: () => runner.running(),
    // Each part ends, whatever becomes of the others: what still ran would keep the process alive.
    async stop() {
      await endEach(logger, [
        () => lease.drain(),
        // Each host goes as soon as nothing runs there any more, whatever the others still wait for.
        () => Promise.all([runner.stop({ drainSeconds }), hosts.stop()]),
        () => lease.stop(),
        () => listener.close(),
      ]);
    },
    async drop() {
      await endEach(logger, [
        () => Promise.all([runner.stop({ drainSeconds: 0 }), hosts.drop()]),
        () => listener.close(),
      ]);
    },
  };
}

/** In order. One that fails, such as while the database is away, does not keep the next from ending. */
async function endEach(logger: Log, parts: readonly (() => Promise<unknown>)[]): Promise<void> {
  for (const end of parts) {
    try {
      await end();
    } catch (error) {
      logger.warn({ err: error }, "a part of the worker did not end well");
    }
  }
}

export interface KindDeps {
  readonly installationId: InstallationId;
  readonly images: ImageContents;
  readonly importKind: OperationKind<ImportInput>;
  readonly buildKind: OperationKind<BuildInput>;
  readonly secretBox: SecretBox;
  /** What the copies of images in a host's pool may take. */
  readonly imageCacheBytes: number;
  readonly probe?: CrashProbe;
}

/** Every kind of operation, one line each; the kinds of VM actions follow from their list. */
export function operationKinds({
  installationId,
  images,
  importKind,
  buildKind,
  secretBox,
  imageCacheBytes,
  probe,
}: KindDeps): KindRegistry {
  const making = { images, cache: () => ({ kinds: registry, limitBytes: imageCacheBytes }) };
  const kinds: AnyOperationKind[] = [
    ...hostKinds({ installationId, sink: vmObservations }),
    anyKind(importKind),
    anyKind(buildKind),
    ...networkKinds(),
    anyKind(bringHostImageKind({ images })),
    anyKind(evictHostImageKind),
    anyKind(vmCreateKind({ ...making, secretBox })),
    anyKind(vmDeleteKind),
    anyKind(volumeCreateKind(making)),
    anyKind(volumeDeleteKind),
    anyKind(volumeResizeKind),
    anyKind(attachDiskKind(making)),
    anyKind(detachDiskKind),
    ...vmNicKinds(),
    ...vmActions.map(({ kind }) => kind),
  ];
  const registry = createKindRegistry(kinds, probe);
  return registry;
}
