import type { Sql } from "../db/client.ts";
import { pageOf, pageQuery } from "../http/pagination.ts";
import { type Api, NoContent } from "../http/route.ts";
import type { Clock } from "../lib/clock.ts";
import { CreateTokenBody, TokenCreated, TokenSchema } from "./token-schemas.ts";
import { createToken, getToken, pageOfTokens, revoke } from "./token-service.ts";

export interface TokenDeps {
  readonly db: Sql;
  readonly clock: Clock;
}

const TokenPage = pageOf(TokenSchema).meta({ id: "TokenPage" });

/** Tokens are the installation's: only a token that reaches everything makes, sees and revokes them. */
export function registerTokenRoutes(api: Api, { db, clock }: TokenDeps): void {
  api.change({
    method: "POST",
    path: "/v1/tokens",
    access: "installation",
    operationId: "createToken",
    tag: "Tokens",
    summary: "Create a token",
    description: "The secret is in this answer only: it is stored hashed and cannot be shown again.",
    body: CreateTokenBody,
    responses: { 201: TokenCreated },
    errors: ["name_taken"],
    change: async (tx, { body }) => {
      const created = await createToken(tx, body, clock.now());
      const location = `/v1/tokens/${created.token.id}`;
      return { status: 201, body: created, location, replayBody: { token: created.token } };
    },
  });

  api.read({
    method: "GET",
    path: "/v1/tokens",
    access: "installation",
    operationId: "listTokens",
    tag: "Tokens",
    summary: "List tokens",
    description: "By name; revoked ones are left out.",
    query: pageQuery,
    responses: { 200: TokenPage },
    handle: async ({ query }) => ({ status: 200, body: await pageOfTokens(db, query) }),
  });

  api.read({
    method: "GET",
    path: "/v1/tokens/:token",
    access: "installation",
    operationId: "getToken",
    tag: "Tokens",
    summary: "Get a token",
    responses: { 200: TokenSchema },
    errors: ["not_found"],
    handle: async ({ params }) => ({ status: 200, body: await getToken(db, params.token) }),
  });

  api.change({
    method: "DELETE",
    path: "/v1/tokens/:token",
    access: "installation",
    operationId: "revokeToken",
    tag: "Tokens",
    summary: "Revoke a token",
    description: "It stops working at once. The last token that reaches everything cannot be revoked.",
    responses: { 204: NoContent },
    errors: ["not_found", "conflict"],
    change: async (tx, { params }) => {
      await revoke(tx, params.token, clock.now());
      return { status: 204, body: undefined };
    },
  });
}
