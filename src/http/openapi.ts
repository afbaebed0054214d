import swagger from "@fastify/swagger";
import type { FastifyInstance } from "fastify";
import { jsonSchemaTransform, jsonSchemaTransformObject } from "fastify-type-provider-zod";
import type { RegisteredRoute } from "./api.ts";
import { finishDocument, type OpenApiDocument } from "./openapi-document.ts";
import { TAGS } from "./route.ts";

const DESCRIPTION = `One API over an inventory of KVM and Xen hosts.

A change that touches a host answers 202 with the resource as it now stands and an operation that can be watched;
\`?wait=30\` holds the answer until the operation ends. Errors are problems (RFC 9457) with a \`code\`. A request with
an \`Idempotency-Key\` can be repeated safely. Send \`Authorization: Bearer <token>\`.`;

/** Collects the routes that are registered afterwards. Await it before the first one. */
export async function collectOpenApi(app: FastifyInstance, version: string): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: {
        title: "Drover",
        description: DESCRIPTION,
        version,
        license: { name: "Apache-2.0", identifier: "Apache-2.0" },
      },
      servers: [{ url: "/" }],
      tags: TAGS.map((name) => ({ name })),
      components: { securitySchemes: { token: { type: "http", scheme: "bearer" } } },
      security: [{ token: [] }],
    },
    transform: jsonSchemaTransform,
    transformObject: jsonSchemaTransformObject,
  });
}

/** Serves /openapi.json: written once, for it does not change while the process runs. */
export function serveOpenApi(app: FastifyInstance, routes: readonly RegisteredRoute[]): void {
  let written: string | undefined;
  app.get("/openapi.json", { schema: { hide: true } }, (_request, reply) => {
    written ??= JSON.stringify(finishDocument(app.swagger() as unknown as OpenApiDocument, routes));
    return reply.type("application/json").send(written);
  });
}
