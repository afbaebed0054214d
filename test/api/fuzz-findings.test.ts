import { connect } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Conventions, startConventions } from "../fixtures/conventions.ts";

/** What the fuzz has found, one test each, so that it stays found. */

let api: Conventions;
beforeAll(async () => {
  api = await startConventions();
});
afterAll(async () => {
  await api.close();
});

/** Sends a request as it is, with the token, and gives all that comes back. */
async function sendRaw(lines: readonly string[], body = ""): Promise<string> {
  const socket = connect(Number(new URL(api.baseUrl).port), "127.0.0.1");
  const token = `Authorization: Bearer ${api.token}`;
  socket.write([...lines, token, "Connection: close", "", body].join("\r\n"));
  let text = "";
  for await (const chunk of socket.setEncoding("latin1")) text += String(chunk);
  return text;
}

test("CONNECT is answered with a problem", async () => {
  const answer = await sendRaw(["CONNECT /v1/things HTTP/1.1", "Host: x"]);
  expect(answer).toMatch(/^HTTP\/1\.1 400 /);
  expect(answer).toContain("application/problem+json");
  expect(answer).toContain('"code":"invalid_request"');
});

test.each(["", "x", "100-continue, x"])(
  "an Expect of %j does not keep the answer from its body",
  async (value) => {
    const answer = await sendRaw(["GET /v1/things/default HTTP/1.1", "Host: x", `Expect: ${value}`]);
    expect(answer).toMatch(/^HTTP\/1\.1 200 /m);
    expect(answer).toContain('"name":"default"');
  },
);

test("a request with more bytes than it declares gets its own answer, not a refusal of what follows", async () => {
  const body = '{"name":"declared-short"}';
  const lines = ["POST /v1/things HTTP/1.1", "Host: x", "Content-Type: application/json"];
  const answer = await sendRaw([...lines, `Content-Length: ${body.length}`], `${body}{}`);
  expect(answer).toMatch(/^HTTP\/1\.1 202 /);
  expect(answer.match(/HTTP\/1\.1/g)).toHaveLength(1);
});

test("a chunked body that breaks off in nonsense is a 400, and nothing is made", async () => {
  const lines = ["POST /v1/things HTTP/1.1", "Host: x", "Content-Type: application/json"];
  const answer = await sendRaw(
    [...lines, "Transfer-Encoding: chunked"],
    '12\r\n{"name":"broken-of\r\nzz\r\n',
  );
  expect(answer).toMatch(/^HTTP\/1\.1 400 /);
  expect(await api.database.db.project.count({ where: { name: { startsWith: "broken" } } })).toBe(0);
});
