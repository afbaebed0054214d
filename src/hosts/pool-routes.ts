import { z } from "zod";
import type { Database } from "../db/client.ts";
import { pageOf, pageQuery, pageWindow, toPage } from "../http/pagination.ts";
import type { Api } from "../http/route.ts";
import { IdOrName, plainText, QueryBoolean, timestamp } from "../http/schemas.ts";
import { DroverError } from "../lib/errors.ts";
import { isUuid } from "../lib/ids.ts";
import { HostPoolSchema } from "./host-schemas.ts";
import { listPools, type PoolRow } from "./pool-store.ts";

const PoolSchema = z
  .strictObject({ host: z.strictObject({ id: z.string(), name: z.string() }), ...HostPoolSchema.shape })
  .meta({ id: "Pool", description: "A storage pool of a host, as the host's last inventory showed it." });

const PoolPage = pageOf(PoolSchema).meta({ id: "PoolPage" });

/** The storage pools of all hosts: where there is room. */
export function registerPoolRoutes(api: Api, { db }: { readonly db: Database }): void {
  api.read({
    access: "installation",
    tag: "Hosts",
    method: "GET",
    path: "/v1/pools",
    operationId: "listPools",
    summary: "List the storage pools of all hosts",
    query: {
      ...pageQuery,
      host: IdOrName.optional().meta({ description: "Id or name of the host." }),
      name: plainText({ max: 64 }).optional(),
      type: plainText({ max: 32 }).optional().meta({ description: "Such as `dir` or `logical`." }),
      active: QueryBoolean.optional(),
    },
    responses: { 200: PoolPage },
    handle: async ({ query }) => {
      const { pageSize, pageToken, ...filters } = query;
      const request = { pageSize, pageToken };
      const binding = { list: "pools", orderBy: "host", filters };
      const { after, limit } = pageWindow(binding, request);
      if (after !== null && !isUuid(after.id))
        throw new DroverError("invalid_request", "The page token is not one of ours: begin again without.");
      const from = after === null ? null : { host: String(after.value), id: after.id };
      const rows = await listPools(db, filters, { after: from, limit });
      const page = toPage(binding, request, rows, ({ host, id }) => ({ value: host, id }), viewOf);
      return { status: 200, body: page };
    },
  });
}

function viewOf(row: PoolRow): z.output<typeof PoolSchema> {
  const { name, uuid, active, type, path, capacityBytes, availableBytes, observedAt } = row;
  return {
    ...{ host: { id: row.hostId, name: row.host }, name, uuid, active, type, path },
    ...{ capacityBytes, availableBytes, allocationBytes: Math.max(0, capacityBytes - availableBytes) },
    observedAt: timestamp(observedAt),
  };
}
