import { z } from "zod";
import { createDatabase, type Database } from "../../../src/db/client.ts";
import { type Listener, openListener } from "../../../src/db/listener.ts";
import { type HostConnection, HypervisorError } from "../../../src/hypervisors/hypervisor.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { type HostId, newId, type OperationId, type VmId } from "../../../src/lib/ids.ts";
import type { CrashProbe } from "../../../src/operations/crash-points.ts";
import {
  type AnyOperationKind,
  anyKind,
  type EnqueueRequest,
  type OperationKind,
  type Subject,
} from "../../../src/operations/operation-kind.ts";
import { createKindRegistry, type KindRegistry } from "../../../src/operations/operation-kinds.ts";
import { enqueue, type OperationRecord } from "../../../src/operations/operation-queue.ts";
import {
  createOperationRunner,
  type OperationRunner,
  type RunnerLimits,
} from "../../../src/operations/operation-runner.ts";
import type { OperationState } from "../../../src/operations/operation-state.ts";
import {
  startWorkerLease,
  type WorkerLease,
  type WorkerLeaseDeps,
} from "../../../src/operations/worker-lease.ts";
import { createTestDatabase, execute } from "../../fixtures/database.ts";
import { silentLog } from "../../fixtures/log.ts";

/** What the kinds of these tests take: what they work on, and a word for the test. */
export const TestInput = z.object({
  vmId: z.string(),
  hostId: z.string().nullable(),
  word: z.string().default(""),
});
export type TestInput = z.output<typeof TestInput>;

export function testKind(
  name: string,
  definition: Omit<OperationKind<TestInput>, "name" | "input" | "deadlineSeconds"> & {
    readonly deadlineSeconds?: number;
  },
): OperationKind<TestInput> {
  return { deadlineSeconds: 600, ...definition, name, input: TestInput };
}

export interface Engine {
  readonly db: Database;
  readonly url: string;
  readonly kinds: KindRegistry;
  addHost(): Promise<HostId>;
  startWorker(options?: WorkerOptions): Promise<TestWorker>;
  /** Queues an operation on one VM (exclusive) and wakes the workers. */
  submit(kind: OperationKind<TestInput>, options: Submission): Promise<OperationRecord>;
  operation(id: OperationId): Promise<OperationRow>;
  steps(id: OperationId): Promise<StepRow[]>;
  /** Waits until the operation has ended, generously. */
  ended(id: OperationId): Promise<OperationRow>;
  close(): Promise<void>;
}

export interface Submission {
  readonly vmId: VmId;
  readonly hostId?: HostId;
  readonly word?: string;
  readonly subjects?: readonly Subject[];
  readonly actor?: string;
}

export interface WorkerOptions {
  readonly probe?: CrashProbe;
  readonly limits?: RunnerLimits;
  readonly lease?: Partial<
    Pick<WorkerLeaseDeps, "leaseSeconds" | "sendSeconds" | "renewSeconds" | "reapSeconds" | "clock">
  >;
  /** False leaves the hosts to others. */
  readonly ownHosts?: boolean;
  /** Hosts that do not answer it from the beginning. */
  readonly silent?: readonly HostId[];
}

export interface OperationRow {
  readonly id: string;
  readonly seq: bigint;
  readonly kind: string;
  readonly state: OperationState;
  readonly attempt: number;
  readonly host_id: string | null;
  readonly token: string | null;
  readonly worker_id: string | null;
  readonly undoing: boolean;
  readonly error: { readonly code: string; readonly message: string } | null;
  readonly wait_reason: { readonly code: string } | null;
  readonly result: unknown;
  readonly started_at: Date | null;
  readonly ended_at: Date | null;
}

export interface StepRow {
  readonly position: number;
  readonly name: string;
  readonly state: OperationState;
  readonly attempts: number;
  readonly found: unknown;
  readonly result: unknown;
  readonly error: { readonly code: string } | null;
  readonly undo_error: { readonly code: string } | null;
}

/** One worker process in miniature: its own database pool, listener, lease, hosts and runner. */
export interface TestWorker {
  readonly lease: WorkerLease;
  readonly runner: OperationRunner;
  readonly listener: Listener;
  /** Hosts that do not answer at the moment. */
  readonly silent: Set<HostId>;
  /** Hosts of which a call got no answer in its time, once for each call. */
  readonly suspected: readonly HostId[];
  own(hostId: HostId): Promise<void>;
  /** Takes a host away from it, as when another worker was faster; does nothing where it owns it not. */
  lose(hostId: HostId): Promise<void>;
  stop(): Promise<void>;
  /** As after kill -9: its connections close, nothing is given back, what runs hangs for ever. */
  kill(): Promise<void>;
}

export async function createEngine(kinds: readonly OperationKind<TestInput>[]): Promise<Engine> {
  const database = await createTestDatabase();
  const { db, url } = database;
  const registry = createKindRegistry(kinds.map((kind): AnyOperationKind => anyKind(kind)));
  const waker = await openListener({ url, logger: silentLog });
  const workers: TestWorker[] = [];

  const operation = async (id: OperationId): Promise<OperationRow> => {
    const rows = await db.$queryRaw<OperationRow[]>`SELECT * FROM operation WHERE id = ${id}::uuid`;
    const row = rows[0];
    if (row === undefined) throw new Error(`no operation ${id}`);
    return row;
  };

  return {
    db,
    url,
    kinds: registry,
    operation,
    async addHost() {
      const id = newId<HostId>();
      await db.$executeRaw`INSERT INTO host (id, name, uri, driver, hypervisor, updated_at)
        VALUES (${id}::uuid, ${id}, 'sim+kvm://x', 'sim', 'kvm', now())`;
      return id;
    },
    async startWorker(options = {}) {
      const worker = await startTestWorker(url, registry, options);
      workers.push(worker);
      return worker;
    },
    async submit(kind, submission) {
      const record = await db.transaction((tx) => enqueue(tx, requestFor(kind, submission), registry));
      waker.notify("operation_queued");
      waker.notify("operation_cancel_asked");
      return record;
    },
    async steps(id) {
      return await db.$queryRaw<StepRow[]>`
        SELECT * FROM operation_step WHERE operation_id = ${id}::uuid ORDER BY position`;
    },
    async ended(id) {
      return await until(`operation ${id} has ended`, async () => {
        const row = await operation(id);
        return row.ended_at === null ? null : row;
      });
    },
    async close() {
      for (const worker of workers) await worker.stop();
      await waker.close();
      await database.drop();
    },
  };
}

export function requestFor(
  kind: OperationKind<TestInput>,
  submission: Submission,
): EnqueueRequest<TestInput> {
  const { vmId, hostId, word, actor } = submission;
  return {
    kind,
    input: { vmId, hostId: hostId ?? null, word: word ?? "" },
    subjects: submission.subjects ?? [{ kind: "vm", id: vmId, mode: "exclusive" }],
    targets: [{ kind: "vm", id: vmId, name: "vm" }],
    projectId: null,
    hosts: [],
    actor: actor ?? "system",
    requestId: null,
  };
}

/** Polls until the look gives something; fails after a generous time. */
export async function until<T>(what: string, look: () => Promise<T | null> | T | null): Promise<T> {
  const limit = performance.now() + 30_000;
  for (;;) {
    const seen = await look();
    if (seen !== null) return seen;
    if (performance.now() > limit) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Connections to the database of one worker, beside its listener's. */
export const POOL_SIZE = 6;

let workerCount = 0;

async function startTestWorker(
  plainUrl: string,
  kinds: KindRegistry,
  options: WorkerOptions,
): Promise<TestWorker> {
  const applicationName = `worker-${++workerCount}`;
  const named = new URL(plainUrl);
  named.searchParams.set("application_name", applicationName);
  const url = named.toString();
  const { db, die } = mortal(createDatabase({ url, maxConnections: POOL_SIZE, logger: silentLog }));
  const listener = await openListener({ url, logger: silentLog });
  const lease = await startWorkerLease({
    db,
    listener,
    clock: systemClock,
    logger: silentLog,
    reapSeconds: 0.1,
    ...options.lease,
  });
  const owned = new Map<HostId, bigint>();
  const silent = new Set<HostId>(options.silent);
  const suspected: HostId[] = [];
  let over = false;
  const own = async (hostId: HostId): Promise<void> => {
    const rows = await db.$queryRaw<{ epoch: bigint }[]>`
      UPDATE host SET owner_id = ${lease.workerId}::uuid, epoch = epoch + 1
      WHERE id = ${hostId}::uuid AND owner_id IS NULL
        AND EXISTS (SELECT FROM worker WHERE id = ${lease.workerId}::uuid AND lease_expires_at > now())
      RETURNING epoch`;
    const row = rows[0];
    if (row !== undefined) owned.set(hostId, row.epoch);
  };
  const ownAll = async (): Promise<void> => {
    const free = await db.$queryRaw<{ id: HostId }[]>`SELECT id FROM host WHERE owner_id IS NULL`;
    for (const { id } of free) await own(id);
  };
  if (options.ownHosts !== false) await ownAll();
  let owning: Promise<void> = Promise.resolve();
  const acquire = setInterval(() => {
    if (options.ownHosts === false) return;
    owning = owning.then(ownAll).catch(() => undefined);
  }, 50);
  const runner = createOperationRunner({
    db,
    wakes: listener,
    kinds,
    hosts: {
      owned: () => owned,
      connection(hostId) {
        if (silent.has(hostId) || !owned.has(hostId))
          throw new HypervisorError("unreachable", "the host is silent");
        return {} as unknown as HostConnection;
      },
      suspect: (hostId) => suspected.push(hostId),
    },
    lease,
    logger: silentLog,
    clock: systemClock,
    limits: { pollSeconds: 0.1, ...options.limits },
    ...(options.probe === undefined ? {} : { probe: options.probe }),
  });
  const closeConnections = async (): Promise<void> => {
    over = true;
    clearInterval(acquire);
    await owning;
    await listener.close();
    await db.close();
  };
  return {
    lease,
    runner,
    listener,
    silent,
    suspected,
    own,
    async lose(hostId) {
      if (!owned.delete(hostId)) return;
      await db.$executeRaw`
        UPDATE host SET owner_id = NULL, epoch = epoch + 1
        WHERE id = ${hostId}::uuid AND owner_id = ${lease.workerId}::uuid`;
    },
    async stop() {
      if (over) return;
      await runner.stop({ drainSeconds: 5 });
      clearInterval(acquire);
      await owning;
      await lease.stop();
      await closeConnections();
    },
    async kill() {
      if (over) return;
      over = true;
      die();
      clearInterval(acquire);
      await listener.close();
      await execute(
        plainUrl,
        // Other test files have workers of the same names on the same server.
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE application_name = '${applicationName}' AND datname = current_database()`,
      );
    },
  };
}

/** A database that, once it is told to die, answers nothing any more: as seen by a process that was killed. */
function mortal(db: Database): { readonly db: Database; readonly die: () => void } {
  let dead = false;
  const never = (): Promise<never> => new Promise<never>(() => undefined);
  return {
    db: new Proxy(db, { get: (target, name): unknown => (dead ? never : Reflect.get(target, name)) }),
    die: () => {
      dead = true;
    },
  };
}

export function vm(): VmId {
  return newId<VmId>();
}

/** Times under which a killed worker is given up in a fraction of a second. */
export const SHORT_LEASE = {
  leaseSeconds: 3,
  sendSeconds: 0.6,
  renewSeconds: 0.15,
  reapSeconds: 0.1,
} as const;
