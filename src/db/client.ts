import { PrismaPg } from "@prisma/adapter-pg";
import type { Log } from "../lib/log.ts";
import { Connections, createPool } from "./connections.ts";
import { PrismaClient } from "./generated/client.ts";
import { sqlOver } from "./sql.ts";
import {
  type Db,
  type Models,
  runTransaction,
  sendAlone,
  type TransactionOptions,
  type Tx,
} from "./transaction.ts";

export type { Db, Sql, TransactionOptions, Tx } from "./transaction.ts";

/** The database of this process: queries outside transactions by itself, transactions, and its end. */
export type Database = Db & {
  /** See runTransaction. */
  transaction<T>(work: (tx: Tx) => Promise<T>, options?: TransactionOptions): Promise<T>;
  /**
   * Breaks every connection: what waits on one is refused as unavailable at once, and new ones are made when needed.
   * For a server that is silent, which would keep everybody waiting for as long as it is.
   */
  breakConnections(): void;
  /** Waits for what is under way, then closes every connection. May be called twice. */
  close(): Promise<void>;
};

export interface DatabaseOptions {
  readonly url: string;
  readonly maxConnections: number;
  readonly logger: Log;
}

/**
 * Opens a pool of at most `maxConnections` connections, each made when first needed: an unreachable server is an
 * error of the first query (isDatabaseUnavailable), not of this call.
 */
export function createDatabase({ url, maxConnections, logger }: DatabaseOptions): Database {
  const pool = createPool(url, maxConnections, logger);
  const connections = new Connections(pool, maxConnections);
  const prisma = new PrismaClient({ adapter: new PrismaPg(pool) });
  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    await prisma.$disconnect();
    await pool.end();
  };
  return {
    ...modelsOf(prisma),
    ...sqlOver((statement) => sendAlone(connections, statement)),
    transaction: (work, options) => runTransaction(connections, work, options),
    breakConnections: () => {
      connections.breakAll();
    },
    close: () => (closing ??= close()),
  };
}

function modelsOf(prisma: PrismaClient): Models {
  const { installation, project, apiToken, worker, host, hostNetwork, hostPool, vm, reservation } = prisma;
  const { vmNic, vmImage, vmSeed, volume, image, sshKey, observedDomain, operation, operationSubject } =
    prisma;
  const { operationStep, event, idempotencyKey, consoleTicket, network, networkHost, networkAddress } =
    prisma;
  const { hostImage, hostImageUse } = prisma;
  return {
    ...{ installation, project, apiToken, worker, host, hostNetwork, hostPool, vm, reservation },
    ...{ vmNic, vmImage, vmSeed, volume, image, sshKey, observedDomain, operation, operationSubject },
    ...{ operationStep, event, idempotencyKey, consoleTicket, network, networkHost, networkAddress },
    ...{ hostImage, hostImageUse },
  };
}
