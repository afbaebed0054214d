import { createServer, request as httpRequest, type IncomingMessage } from "node:http";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseImportAllowList } from "../../../../src/images/address-guard.ts";
import { type MirrorProxy, startMirrorProxy } from "../../../../src/images/build/mirror-proxy.ts";

let origin = "";
let proxy: MirrorProxy;
const server = createServer(({ url }, response) => {
  if (url === "/redirect") response.writeHead(302, { location: "http://169.254.169.254/latest" }).end();
  else if (url === "/package") response.end("content");
  else response.writeHead(404).end();
});
const echo = createTcpServer((socket) => socket.pipe(socket));

beforeAll(async () => {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  await new Promise<void>((resolve) => echo.listen(0, "127.0.0.1", resolve));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const allow = parseImportAllowList(["127.0.0.1"]);
  const resolve = () => Promise.resolve([{ address: "10.9.8.7", family: 4 as const }]);
  proxy = await startMirrorProxy({ allow, resolve }, new AbortController().signal);
});
afterAll(async () => {
  await proxy.close();
  server.close();
  echo.close();
});

/** Asks the proxy as apt does. */
async function ask(path: string, { method = "GET", secret = true } = {}): Promise<IncomingMessage> {
  const { hostname, port, username, password } = new URL(proxy.env["http_proxy"] ?? "");
  const auth = Buffer.from(`${username}:${password}`).toString("base64");
  const headers = secret ? { "proxy-authorization": `Basic ${auth}` } : {};
  return await new Promise((resolve, reject) => {
    const sent = httpRequest({ hostname, port, method, path, headers });
    sent.once("response", resolve).once("error", reject);
    sent.once("connect", (answer: IncomingMessage) => {
      resolve(answer);
    });
    sent.end();
  });
}

describe("the proxy before a mirror that a client named", () => {
  it("fetches, and tells apt what is not there", async () => {
    const answer = await ask(`${origin}/package`);
    expect(answer.statusCode).toBe(200);
    expect(Buffer.concat(await answer.toArray()).toString()).toBe("content");
    expect((await ask(`${origin}/nothing`)).statusCode).toBe(404);
    expect(proxy.refusal()).toBeNull();
  });

  it("makes tunnels to what is allowed", async () => {
    const answer = await ask(`127.0.0.1:${(echo.address() as AddressInfo).port}`, { method: "CONNECT" });
    expect(answer.statusCode).toBe(200);
    answer.socket.write("hello");
    const [echoed] = (await answer.socket.take(1).toArray()) as Buffer[];
    expect(echoed?.toString()).toBe("hello");
    answer.socket.destroy();
  });

  it("serves nobody else", async () => {
    expect((await ask(`${origin}/package`, { secret: false })).statusCode).toBe(407);
    expect((await ask("127.0.0.1:1", { method: "CONNECT", secret: false })).statusCode).toBe(407);
  });

  it("refuses redirects and names that lead inside, and remembers it", async () => {
    expect((await ask(`${origin}/redirect`)).statusCode).toBe(403);
    expect(proxy.refusal()).toMatchObject({ code: "address_forbidden" });
    expect((await ask("http://looks-public.example/debian")).statusCode).toBe(403);
    expect((await ask("looks-public.example:443", { method: "CONNECT" })).statusCode).toBe(403);
  });
});
