import { Prisma } from "../db/generated/client.ts";
import type { Sql } from "../db/transaction.ts";
import { isUuid } from "../lib/ids.ts";

/** A pool of a host, as the host's last inventory showed it. */
export interface PoolRow {
  readonly id: string;
  readonly hostId: string;
  readonly host: string;
  readonly name: string;
  readonly uuid: string | null;
  readonly active: boolean;
  readonly type: string;
  readonly path: string | null;
  readonly capacityBytes: number;
  readonly availableBytes: number;
  /** The last inventory confirms what it does not write again. */
  readonly observedAt: Date;
}

const SELECT = Prisma.sql`
  SELECT p.id, p.host_id AS "hostId", h.name AS host, p.name, p.uuid, p.active, p.type, p.path,
    p.capacity_bytes::float8 AS "capacityBytes", p.available_bytes::float8 AS "availableBytes",
    greatest(p.observed_at, h.inventory_at) AS "observedAt"
  FROM host_pool p JOIN host h ON h.id = p.host_id`;

export interface PoolFilter {
  readonly host?: string | undefined;
  readonly name?: string | undefined;
  readonly type?: string | undefined;
  readonly active?: boolean | undefined;
}

/** Pools in the order of their hosts' names and their own: those after the position where the last page ended. */
export async function listPools(
  db: Sql,
  { host, name, type, active }: PoolFilter,
  page: { readonly after: { readonly host: string; readonly id: string } | null; readonly limit: number },
): Promise<PoolRow[]> {
  const conditions = [
    ...(host === undefined
      ? []
      : [isUuid(host) ? Prisma.sql`h.id = ${host}::uuid` : Prisma.sql`h.name = ${host}`]),
    ...(name === undefined ? [] : [Prisma.sql`p.name = ${name}`]),
    ...(type === undefined ? [] : [Prisma.sql`p.type = ${type}`]),
    ...(active === undefined ? [] : [Prisma.sql`p.active = ${active}::boolean`]),
    ...(page.after === null
      ? []
      : [Prisma.sql`(h.name, p.id) > (${page.after.host}, ${page.after.id}::uuid)`]),
  ];
  return await db.$queryRaw<PoolRow[]>`
    ${SELECT} WHERE ${conditions.length === 0 ? Prisma.sql`true` : Prisma.join(conditions, " AND ")}
    ORDER BY h.name, p.id LIMIT ${page.limit}`;
}
