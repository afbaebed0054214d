import { once } from "node:events";
import { connect } from "node:net";
import request from "supertest";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { MAX_JSON_DEPTH } from "../../src/http/json-scan.ts";
import { type Answer, type Conventions, startConventions } from "../fixtures/conventions.ts";

const LIMITS = { maxBytes: 4096, timeoutSeconds: 1 };
let api: Conventions;

beforeAll(async () => {
  api = await startConventions({ bodyLimits: LIMITS });
});

afterAll(async () => {
  await api.close();
});

function expectProblem(answer: Pick<Answer, "status" | "body">, status: number, code: string): void {
  expect(answer.body).toMatchObject({ status, code, type: `urn:drover:problem:${code}` });
  expect(answer.status).toBe(status);
  expect(answer.body["detail"]).toMatch(/\S/);
  expect(answer.body["requestId"]).toMatch(/\S/);
  expect(["never", "afterStateChange", "afterCapacity", "temporary"]).toContain(answer.body["retry"]);
}

/** Sends a body as it is, with a JSON content type. */
async function postRaw(body: string | Buffer, type = "application/json"): Promise<request.Response> {
  return await request(api.baseUrl)
    .post("/v1/things")
    .set("authorization", `Bearer ${api.token}`)
    .set("content-type", type)
    .serialize((text: unknown) => text as string)
    .send(body);
}

describe("a body", () => {
  test.each([
    ["broken JSON", '{"name": '],
    ["a key twice", '{"name":"a","name":"b"}'],
    ["a key twice, once escaped", '{"name":"a","n\\u0061me":"b"}'],
    ["a prototype", '{"name":"a","__proto__":{"x":1}}'],
    ["nesting without end", `{"name":${"[".repeat(MAX_JSON_DEPTH + 1)}${"]".repeat(MAX_JSON_DEPTH + 1)}}`],
    ["broken UTF-8", Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])],
  ])("with %s is a 400", async (_what, body) => {
    const answer = await postRaw(body);
    expect(answer.headers["content-type"]).toContain("application/problem+json");
    expectProblem(answer, 400, "invalid_request");
  });

  test.each([
    ["an unknown member", { name: "a", colour: "red" }, "/colour"],
    ["a wrong type", { name: 7 }, "/name"],
    ["a name with a capital", { name: "Web" }, "/name"],
    ["a name like a UUID", { name: "0199f3a2-7c11-7e02-9f1b-2b7d1a3c5e77" }, "/name"],
    ["a NUL", { name: "a", note: "x\u0000y" }, "/note"],
    ["a lone surrogate", { name: "a", note: "\ud800" }, "/note"],
    ["a pointer to escape", { name: "a", "a/b~c": 1 }, "/a~1b~0c"],
    ["nothing", undefined, "/name"],
    ["an array", [], ""],
  ])("with %s is a 422 that says where", async (_what, body, pointer) => {
    const answer = await api.request("POST", "/v1/things", body === undefined ? {} : { body });
    expectProblem(answer, 422, "invalid_request");
    expect(answer.body["violations"]).toMatchObject([{ pointer }]);
  });

  test("of another content type is a 415", async () => {
    for (const type of ["text/plain", "application/xml", "multipart/form-data; boundary=x"]) {
      expectProblem(await postRaw("{}", type), 415, "unsupported_media_type");
    }
  });

  test("too large is a 413", async () => {
    const answer = await postRaw(JSON.stringify({ name: "a", note: "x".repeat(LIMITS.maxBytes) }));
    expectProblem(answer, 413, "payload_too_large");
  });

  test("that never ends is a 408", async () => {
    const head = `POST /v1/things HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${api.token}\r\n`;
    const text = await overSocket(
      `${head}content-type: application/json\r\ncontent-length: 100\r\n\r\n{"name"`,
    );
    expect(text).toMatch(/^HTTP\/1\.1 408 /);
    expect(text).toContain('"code":"invalid_request"');
  });

  test("changes nothing when it is refused", async () => {
    expect(await api.database.db.project.count({ where: { name: "a" } })).toBe(0);
  });
});

/** Sends bytes and reads until the other side closes. */
function overSocket(text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(Number(new URL(api.baseUrl).port), "127.0.0.1");
    let answer = "";
    socket.setEncoding("utf8");
    socket.on("data", (part: string) => (answer += part));
    socket.on("close", () => {
      resolve(answer);
    });
    socket.on("error", reject);
    socket.write(text);
  });
}

describe("what is not HTTP", () => {
  test.each([
    ["nonsense", "nonsense\r\n\r\n", 400],
    ["headers too long", `GET / HTTP/1.1\r\nhost: x\r\na: ${"x".repeat(20_000)}\r\n\r\n`, 431],
  ])("%s is a problem", async (_what, text, status) => {
    const answer = await overSocket(text);
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    expect(answer).toContain("application/problem+json");
    const body = JSON.parse(answer.slice(answer.indexOf("\r\n\r\n") + 4)) as Record<string, unknown>;
    expectProblem({ status, body }, status, "invalid_request");
  });
});

describe("a request that names an upgrade", () => {
  const head = (path: string, upgrade: string): string =>
    `GET ${path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: ${upgrade}\r\n`;

  test("to anything but a WebSocket is an ordinary request", async () => {
    const text = await overSocket(`${head("/v1/nothing", "h2c")}connection: close\r\n\r\n`);
    expect(text).toMatch(/^HTTP\/1\.1 404 /);
  });

  test("to a WebSocket where there is none is a problem that ends the connection", async () => {
    const text = await overSocket(`${head("/v1/nothing", "websocket")}\r\n`);
    expect(text).toMatch(/^HTTP\/1\.1 404 /);
    expect(text.toLowerCase()).toContain("connection: close");
    expect(text).toContain('"code":"not_found"');
  });
});

test("a console's ticket is masked in the log", async () => {
  const ticket = `console_${"x".repeat(43)}`;
  await api.request("GET", `/console/${ticket}`);
  await expect.poll(() => JSON.stringify(api.logged)).toContain("/console/console_***");
  expect(JSON.stringify(api.logged)).not.toContain(ticket);
});

describe("a path", () => {
  test("that is not there is a 404", async () => {
    expectProblem(await api.request("GET", "/v1/nothing"), 404, "not_found");
  });

  test.each(["Web", "%00", "a%2fb", "..%2f..", "x".repeat(64), "ä"])(
    "with %s for a name is a 404",
    async (name) => {
      expectProblem(await api.request("GET", `/v1/things/${name}`), 404, "not_found");
    },
  );

  test("with broken encoding is a 400", async () => {
    expectProblem(await api.request("GET", "/v1/things/%zz"), 400, "invalid_request");
  });

  test("asked with a method that it does not take is a 405 that names those it takes", async () => {
    const answer = await api.request("PATCH", "/v1/things/web-1");
    expectProblem(answer, 405, "method_not_allowed");
    expect(answer.headers.get("allow")).toBe("DELETE, GET, HEAD");
  });

  test("answers HEAD like GET, without the body", async () => {
    await api.request("POST", "/v1/things", { body: { name: "headed" } });
    const answer = await api.request("HEAD", "/v1/things/headed");
    expect(answer.status).toBe(200);
    expect(answer.headers.get("etag")).toBe('"3"');
    expect(answer.body).toEqual({});
  });
});

describe("a query", () => {
  test("with an unknown parameter is a 422 that names it", async () => {
    const answer = await api.request("GET", "/v1/things/web-1?verbose=1");
    expectProblem(answer, 422, "invalid_request");
    expect(answer.body["violations"]).toMatchObject([{ pointer: "verbose" }]);
  });

  test("with a parameter sent twice, or a wait out of range, is a 422", async () => {
    for (const query of ["wait=1&wait=2", "wait=61", "wait=-1", "wait=1.5", "wait=", "wait=0x10"]) {
      const answer = await api.request("POST", `/v1/things?${query}`, { body: { name: "waits" } });
      expectProblem(answer, 422, "invalid_request");
      expect(answer.body["violations"]).toMatchObject([{ pointer: "wait" }]);
    }
  });
});

describe("access", () => {
  test.each([
    ["no header", {}],
    ["another scheme", { authorization: "Basic eDp5" }],
    ["an unknown token", { authorization: "Bearer drover_nobody" }],
    ["an empty token", { authorization: "Bearer " }],
  ])("with %s is a 401 that says how", async (_what, headers) => {
    const response = await fetch(`${api.baseUrl}/v1/things/web-1`, { headers });
    expect(response.headers.get("www-authenticate")).toBe('Bearer realm="drover"');
    expectProblem(
      { status: response.status, body: (await response.json()) as Answer["body"] },
      401,
      "unauthenticated",
    );
  });

  test("is checked before the body is read", async () => {
    const response = await fetch(`${api.baseUrl}/v1/things`, { method: "POST", body: "{" });
    expect(response.status).toBe(401);
  });

  test("to a project that is not there is a 404", async () => {
    expectProblem(await api.request("GET", "/v1/things/web-1?project=nowhere"), 404, "not_found");
  });
});

describe("an error of ours", () => {
  test.each(["/v1/broken", "/v1/untrue"])("%s is a 500 that tells the log only", async (path) => {
    const answer = await api.request("GET", path, { headers: { "x-request-id": `broke-${path.slice(4)}` } });
    expectProblem(answer, 500, "internal");
    expect(JSON.stringify(answer.body)).not.toContain("hunter2");
    const line = api.logged.find(
      (entry) => entry["requestId"] === `broke-${path.slice(4)}` && entry["level"] === 50,
    );
    expect(line?.["msg"]).toBe("request failed");
  });

  test("no log line holds a token", () => {
    expect(JSON.stringify(api.logged)).not.toContain(api.token);
  });
});

describe("every answer", () => {
  test("carries a request id: the client's where it is sane, else a new one", async () => {
    const given = await api.request("GET", "/v1/nothing", { headers: { "x-request-id": "abc-1" } });
    expect(given.headers.get("x-request-id")).toBe("abc-1");
    expect(given.body["requestId"]).toBe("abc-1");
    const odd = await api.request("GET", "/v1/nothing", { headers: { "x-request-id": "a b" } });
    expect(odd.headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
  });

  test("tells browsers to keep and guess nothing", async () => {
    const { headers } = await api.request("GET", "/v1/nothing");
    expect(headers.get("cache-control")).toBe("no-store");
    expect(headers.get("x-content-type-options")).toBe("nosniff");
    expect(headers.get("access-control-allow-origin")).toBeNull();
  });
});

describe("If-Match", () => {
  test.each([
    ['"3"', 204],
    ['"1", "3"', 204],
    ["*", 204],
    ['"2"', 412],
    ['W/"3"', 412],
    ["3", 422],
  ])("%s is answered with %i", async (ifMatch, status) => {
    const name = `matched-${status}-${ifMatch.length}`;
    await api.request("POST", "/v1/things", { body: { name } });
    const answer = await api.request("DELETE", `/v1/things/${name}`, { headers: { "if-match": ifMatch } });
    expect(answer.status).toBe(status);
    expect(await api.database.db.project.count({ where: { name } })).toBe(status === 204 ? 0 : 1);
  });
});

describe("?wait=", () => {
  test("holds the answer until the operation ends and reads the resource anew", async () => {
    const held = api.request("POST", "/v1/things?wait=60", { body: { name: "waited" } });
    await expect.poll(() => api.operations.waits.at(-1)?.seconds, { timeout: 20_000 }).toBe(60);
    const id = api.operations.waits.at(-1)?.id ?? "";
    api.operations.end(id);
    const answer = await held;
    expect(answer.status).toBe(202);
    expect(answer.body["operation"]).toEqual({ id, state: "succeeded" });
    expect(answer.body["thing"]).toMatchObject({ name: "waited", generation: 2 });
    expect(answer.headers.get("etag")).toBe('"2"');
  });

  test("stops waiting when the client has gone", async () => {
    const client = new AbortController();
    const waiting = api.operations.waits.length;
    const held = api.request("POST", "/v1/things?wait=60", { body: { name: "left" }, signal: client.signal });
    await expect.poll(() => api.operations.waits.length, { timeout: 20_000 }).toBe(waiting + 1);
    client.abort();
    await expect(held).rejects.toThrow();
    await expect.poll(() => api.operations.waits.at(-1)?.signal.aborted, { timeout: 20_000 }).toBe(true);
  });
});

describe("closing", () => {
  test("ends what waits, with its answer", async () => {
    const other = await startConventions();
    const held = other.request("POST", "/v1/things?wait=60", { body: { name: "drained" } });
    await expect.poll(() => other.operations.waits.length, { timeout: 20_000 }).toBe(1);
    const closed = other.close();
    const answer = await held;
    expect(answer.status).toBe(202);
    expect(answer.body["operation"]).toMatchObject({ state: "pending" });
    await closed;
  });
});

test("closing does not wait for a connection that has sent nothing", async () => {
  const other = await startConventions();
  const socket = connect(Number(new URL(other.baseUrl).port), "127.0.0.1");
  // Answered after the connection was taken: both come in on the same loop.
  await once(socket, "connect");
  const closed = once(socket, "close");
  await other.request("GET", "/v1/things");
  await other.close();
  await closed;
});

describe("a database that is away", () => {
  test("is a 503 that says when to come back", async () => {
    // Nothing listens on the discard port.
    const other = await startConventions({ databaseUrl: "postgresql://drover@127.0.0.1:9/drover" });
    const answer = await other.request("GET", "/v1/things/web-1");
    expectProblem(answer, 503, "unavailable");
    expect(answer.headers.get("retry-after")).toBe("2");
    await other.close();
  });
});
