import { once } from "node:events";
import { readFile, rm } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { execa } from "execa";
import { pino } from "pino";
import { afterAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { createApi } from "../../src/http/api.ts";
import { createServer } from "../../src/http/server.ts";
import { DroverError } from "../../src/lib/errors.ts";
import { makeScratchDirectory } from "../fixtures/temporary-directory.ts";

const directories: string[] = [];

afterAll(async () => {
  for (const directory of directories) await rm(directory, { recursive: true, force: true });
});

/** A certificate of our own for 127.0.0.1, and its key. */
async function makeCertificate(): Promise<{ cert: string; key: string }> {
  const directory = await makeScratchDirectory();
  directories.push(directory);
  const [certPath, keyPath] = [join(directory, "cert.pem"), join(directory, "key.pem")];
  const subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"];
  const request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"];
  await execa("openssl", [...request, ...subject, "-keyout", keyPath, "-out", certPath]);
  return { cert: await readFile(certPath, "utf8"), key: await readFile(keyPath, "utf8") };
}

/** A server with one WebSocket, which gives back what it is sent; `/v1/echo/no` refuses. */
async function startEcho(tls?: { readonly cert: string; readonly key: string }) {
  const app = createServer({ logger: pino({ level: "silent" }), tls });
  const nothing = () => Promise.reject(new Error("there is nothing behind this API"));
  const { api } = createApi(app, {
    database: { transaction: nothing },
    clock: { now: () => new Date(), monotonicMs: () => performance.now() },
    operations: { read: nothing, waitForEnd: nothing, wake: () => undefined },
    authenticate: nothing,
  });
  api.socket({
    path: "/v1/echo/:name",
    access: "public",
    operationId: "echo",
    tag: "Service",
    summary: "For tests.",
    handle: async ({ params, origin }) => {
      if (params.name === "no") throw new DroverError("conflict", "Not now.");
      return (socket) => {
        socket.send(origin);
        socket.on("message", (data) => {
          socket.send(data);
        });
      };
    },
  });
  await app.listen({ host: "127.0.0.1", port: 0 });
  const { port } = app.server.address() as AddressInfo;
  return { app, host: `127.0.0.1:${port}` };
}

describe.each([["plain"], ["TLS"]])("a WebSocket over %s", (kind) => {
  it("goes through routing and refusals, carries bytes, and is closed with 1001 at the end", async () => {
    const tls = kind === "TLS" ? await makeCertificate() : undefined;
    const { app, host } = await startEcho(tls);
    const scheme = tls === undefined ? "ws" : "wss";
    const connect = (path: string) =>
      new WebSocket(`${scheme}://${host}${path}`, tls === undefined ? {} : { ca: tls.cert });

    const refused = connect("/v1/echo/no").on("error", () => undefined);
    const [, response] = (await once(refused, "unexpected-response")) as [unknown, { statusCode: number }];
    expect(response.statusCode).toBe(409);

    const socket = connect("/v1/echo/yes");
    const [origin] = (await once(socket, "message")) as [Buffer];
    expect(origin.toString()).toBe(`${tls === undefined ? "http" : "https"}://${host}`);
    const sent = Buffer.from([0, 1, 255]);
    socket.send(sent);
    expect(((await once(socket, "message")) as [Buffer])[0]).toEqual(sent);

    const greedy = connect("/v1/echo/greedy").on("error", () => undefined);
    await once(greedy, "open");
    greedy.send(Buffer.alloc(2_000_000));
    expect((await once(greedy, "close"))[0]).toBe(1009);

    const closed = once(socket, "close");
    await app.close();
    expect((await closed)[0]).toBe(1001);
  });
});
