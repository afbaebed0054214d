import { randomBytes } from "node:crypto";
import type { FastifyInstance } from "fastify";
import type { Sql } from "../db/transaction.ts";
import { DroverError } from "../lib/errors.ts";
import { ConsoleAssets } from "./console-assets.ts";
import { ASSETS_PATH, consolePage, consolePolicy, goneConsolePage } from "./console-page.ts";
import { Ticket } from "./console-schemas.ts";
import { lookAtTicket } from "./console-service.ts";

const HTML = "text/html; charset=utf-8";

/** The pages for browsers. They are for people and not of the API, so the document does not list them. */
export function serveConsolePages(app: FastifyInstance, { db }: { readonly db: Sql }): void {
  let assets: ConsoleAssets | null = null;

  app.get<{ Params: { ticket: string } }>(
    "/console/:ticket",
    { schema: { hide: true } },
    async (request, reply) => {
      const nonce = randomBytes(16).toString("base64");
      reply.type(HTML).header("content-security-policy", consolePolicy(nonce));
      const ticket = Ticket.safeParse(request.params.ticket);
      // Looking at the page uses nothing up: its WebSocket does.
      const found = ticket.success ? await lookAtTicket(db, ticket.data) : null;
      if (found === null) return reply.code(404).send(goneConsolePage());
      return reply.send(consolePage(found.vmName, found.kind, nonce));
    },
  );

  app.get<{ Params: { "*": string } }>(
    `${ASSETS_PATH}/*`,
    { schema: { hide: true } },
    async (request, reply) => {
      assets ??= new ConsoleAssets();
      const asset = await assets.read(request.params["*"]);
      if (asset === null) throw new DroverError("not_found", "There is no such file.");
      return reply
        .type(asset.contentType)
        .headers({ "cache-control": "public, max-age=3600" })
        .send(asset.content);
    },
  );
}
