import { randomBytes } from "node:crypto";
import type { FastifyInstance } from "fastify";

/**
 * The browsable reference at /docs. Its one script comes from the package itself; fonts, telemetry, proxy and the
 * vendor's own services are off, and the content security policy lets the page reach nothing but this server.
 */
export async function serveDocsPage(app: FastifyInstance): Promise<void> {
  // Five megabytes of text that only processes with an API need.
  const { default: reference } = await import("@scalar/fastify-api-reference");
  const nonce = randomBytes(16).toString("base64");
  const policy = [
    "default-src 'none'",
    `script-src 'self' 'nonce-${nonce}'`,
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data:",
    "font-src 'self' data:",
    "connect-src 'self'",
    "worker-src 'self' blob:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; ");
  await app.register(async (child) => {
    child.addHook("onSend", async (_request, reply) => {
      reply.header("content-security-policy", policy);
    });
    await child.register(reference, {
      routePrefix: "/docs",
      configuration: {
        url: "/openapi.json",
        nonce,
        pageTitle: "Drover API",
        withDefaultFonts: false,
        telemetry: false,
        hideClientButton: true,
        showDeveloperTools: "never",
        agent: { disabled: true },
        mcp: { disabled: true },
      },
    });
  });
}
