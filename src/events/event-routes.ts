import { Readable } from "node:stream";
import { z } from "zod";
import type { Sql } from "../db/client.ts";
import { isDatabaseUnavailable } from "../db/database-errors.ts";
import { projectScope } from "../http/auth.ts";
import { pageQuery } from "../http/pagination.ts";
import type { Api } from "../http/route.ts";
import { Id, IdOrName, queryList } from "../http/schemas.ts";
import { invalidRequest } from "../http/violations.ts";
import type { TokenId } from "../lib/ids.ts";
import type { EventFeed } from "./event-feed.ts";
import { EventSchema, eventView } from "./event-schemas.ts";
import { type EventFilter, latestEventSeq, listEvents } from "./event-store.ts";
import { eventStream } from "./event-stream.ts";

export interface EventRouteDeps {
  readonly db: Sql;
  readonly feed: EventFeed;
  /** False once a token was revoked or has expired: its streams end too. */
  readonly tokenWorks: (id: TokenId) => Promise<boolean>;
  /** Between two comments on a silent stream; 15 without. */
  readonly heartbeatSeconds?: number;
}

// As many digits as surely fit the database's 64 bits.
const Seq = z.string().regex(/^\d{1,18}$/, "must be the seq of an event, or 0");
const EventType = z
  .string()
  .regex(/^[a-zA-Z]{1,32}(\.[a-zA-Z]{1,32}){0,4}$/, "must be of the form vm.created");

const EventPage = z
  .strictObject({
    items: z.array(EventSchema),
    nextAfter: z.string().meta({ description: "What to give as `after` to go on from here." }),
  })
  .meta({ id: "EventPage" });

const LIST_QUERY = {
  pageSize: pageQuery.pageSize,
  after: Seq.optional().meta({
    description: "The `seq` of the last event that you have; 0 for all that are kept.",
  }),
  project: IdOrName.optional().meta({ description: "Only events of this project." }),
  type: queryList(EventType)
    .optional()
    .meta({ description: "A type, or its beginning: `vm` matches `vm.created`." }),
  subject: Id.optional().meta({ description: "Id of what it is about." }),
  operation: Id.optional().meta({ description: "Id of the operation that it is about or came from." }),
};

const DESCRIPTION = `What changed, in the order of commit and without gaps. As JSON a page of events after \`after\`, the
oldest first; without \`after\` from the oldest that is kept (30 days by default).

With \`Accept: text/event-stream\` as Server-Sent Events: what comes after \`Last-Event-ID\` (or \`after\`; without both
from now on), as it happens. Each has its \`seq\` as id, its type as event and the event as JSON for data; on a silent
stream a comment comes every 15 seconds. The stream ends when the service drains: connect again, nothing is lost.`;

/** The log of events, as pages and as a stream. */
export function registerEventRoutes(api: Api, deps: EventRouteDeps): void {
  api.raw({
    method: "GET",
    path: "/v1/events",
    access: "token",
    operationId: "listEvents",
    tag: "Events",
    summary: "List or follow events",
    description: DESCRIPTION,
    query: LIST_QUERY,
    responses: {
      200: {
        description: "A page of events, or a stream of them.",
        content: {
          "application/json": { schema: EventPage },
          "text/event-stream": { schema: z.string() },
        },
      },
    },
    handle: async ({ query, caller, project, signal }, { headers }) => {
      const filter = filterOf(query, projectScope(caller, project));
      const { accept } = headers;
      if (typeof accept === "string" && accept.includes("text/event-stream")) {
        const after = startOf(headers["last-event-id"], query.after) ?? (await latestEventSeq(deps.db));
        const following = { after, filter, signal };
        return streamAnswer(deps, caller.tokenId, following);
      }
      return pageAnswer(deps.db, filter, BigInt(query.after ?? 0), query.pageSize);
    },
  });
}

interface Filters {
  readonly type?: readonly string[] | undefined;
  readonly subject?: string | undefined;
  readonly operation?: string | undefined;
}

function filterOf({ type, subject, operation }: Filters, projectId: EventFilter["projectId"]): EventFilter {
  return {
    projectId: projectId ?? null,
    ...(type === undefined ? {} : { types: type }),
    ...(subject === undefined ? {} : { subjectId: subject }),
    ...(operation === undefined ? {} : { operationId: operation }),
  };
}

/** Where a stream begins; null: now. A browser that connects again sends the header, so it goes before the query. */
function startOf(
  lastEventId: string | readonly string[] | undefined,
  after: string | undefined,
): bigint | null {
  if (lastEventId !== undefined && lastEventId !== "") {
    const seq = Seq.safeParse(lastEventId);
    if (!seq.success)
      throw invalidRequest([{ pointer: "Last-Event-ID", message: "must be the seq of an event" }]);
    return BigInt(seq.data);
  }
  return after === undefined ? null : BigInt(after);
}

async function pageAnswer(db: Sql, filter: EventFilter, after: bigint, limit: number) {
  const events = await listEvents(db, { after, limit, filter });
  const body = { items: events.map(eventView), nextAfter: (events.at(-1)?.seq ?? after).toString() };
  return { status: 200, headers: { "content-type": "application/json; charset=utf-8" }, body };
}

const HEARTBEAT_SECONDS = 15;

function streamAnswer(
  { feed, tokenWorks, heartbeatSeconds = HEARTBEAT_SECONDS }: EventRouteDeps,
  tokenId: TokenId,
  following: Parameters<EventFeed["follow"]>[0],
) {
  const stream = eventStream(feed.follow(following), {
    heartbeatSeconds,
    mayGoOn: () => unlessUnavailable(tokenWorks(tokenId)),
  });
  return {
    status: 200,
    headers: { "content-type": "text/event-stream", "x-accel-buffering": "no" },
    // One portion at a time: a slow reader holds up its own stream, not our memory.
    body: Readable.from(stream, { objectMode: true, highWaterMark: 1 }),
  };
}

/** Null while the database is away: a stream outlives that, as nothing new can be read meanwhile either. */
async function unlessUnavailable(answer: Promise<boolean>): Promise<boolean | null> {
  try {
    return await answer;
  } catch (error) {
    if (isDatabaseUnavailable(error)) return null;
    throw error;
  }
}
