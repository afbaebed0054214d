import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { deleteOutlivedKeys, KEY_LIFETIME_HOURS } from "../../src/http/idempotency-store.ts";
import { createToken } from "../../src/tokens/token-service.ts";
import { type Conventions, startConventions } from "../fixtures/conventions.ts";

let api: Conventions;

beforeAll(async () => {
  api = await startConventions();
  await api.database.db.project.createMany({ data: [{ id: crypto.randomUUID(), name: "other" }] });
});

afterAll(async () => {
  await api.close();
});

let count = 0;

function freshName(): string {
  return `thing-${++count}`;
}

function post(name: string, key: string, path = "/v1/things", more: object = {}) {
  return api.request("POST", path, { body: { name, ...more }, headers: { "idempotency-key": key } });
}

function countThings(name: string): Promise<number> {
  return api.database.db.project.count({ where: { name } });
}

describe("a repeated request", () => {
  test("gets the same ids and status, the operation as it is now, and changes nothing", async () => {
    const name = freshName();
    const first = await post(name, `key-${name}`);
    expect(first.status).toBe(202);
    expect(first.headers.get("idempotency-replayed")).toBeNull();
    const operation = first.body["operation"] as { id: string; state: string };
    expect(operation.state).toBe("pending");

    api.operations.end(operation.id);
    const wakes = api.operations.wakes;
    const again = await post(name, `key-${name}`);
    expect(again.status).toBe(202);
    expect(again.headers.get("idempotency-replayed")).toBe("true");
    expect(again.headers.get("location")).toBe(`/v1/operations/${operation.id}`);
    expect(again.headers.get("etag")).toBe(first.headers.get("etag"));
    expect(again.body["thing"]).toEqual(first.body["thing"]);
    expect(again.body["operation"]).toEqual({ id: operation.id, state: "succeeded" });
    expect(api.operations.wakes).toBe(wakes);
    expect(await countThings(name)).toBe(1);
  });

  test("is answered as before though the world would refuse it now; a first one is refused", async () => {
    const name = freshName();
    const first = await post(name, `key-${name}`, "/v1/looked");
    expect(first).toMatchObject({ status: 201, body: { generation: 7 } });
    api.world.refuses = true;
    try {
      const again = await post(name, `key-${name}`, "/v1/looked");
      expect(again).toMatchObject({ status: 201, body: first.body });
      expect(again.headers.get("idempotency-replayed")).toBe("true");
      const other = freshName();
      expect(await post(other, `key-${other}`, "/v1/looked")).toMatchObject({
        status: 409,
        body: { code: "host_key_unknown" },
      });
      expect(await countThings(other)).toBe(0);
    } finally {
      api.world.refuses = false;
    }
  });

  test("is the same whatever the order of its members and its wait", async () => {
    const name = freshName();
    const key = `key-${name}`;
    const headers = { "idempotency-key": key };
    await api.request("POST", "/v1/things", { body: { name, note: "n" }, headers });
    const again = await api.request("POST", "/v1/things?wait=0", { body: { note: "n", name }, headers });
    expect(again.headers.get("idempotency-replayed")).toBe("true");
  });

  test("with another body or query is refused", async () => {
    const name = freshName();
    const key = `key-${name}`;
    await post(name, key);
    for (const other of [
      await post(name, key, "/v1/things", { note: "x" }),
      await post(name, key, "/v1/things?dry=yes"),
    ]) {
      expect(other.status).toBe(422);
      expect(other.body["code"]).toBe("idempotency_key_reused");
    }
  });

  test("is another request in another project, on another path, or with another token", async () => {
    const name = freshName();
    const key = `key-${name}`;
    await post(name, key);
    const elsewhere = await post(name, key, "/v1/things?project=other");
    expect(elsewhere.body["code"]).toBe("name_taken");
    const { secret } = await api.database.db.transaction((tx) => createToken(tx, { name }, new Date()));
    const byAnother = await api.request("POST", "/v1/things", {
      body: { name },
      headers: { "idempotency-key": key, authorization: `Bearer ${secret}` },
    });
    expect(byAnother.body["code"]).toBe("name_taken");
    api.gate.open();
    const otherPath = await post(freshName(), key, "/v1/slow");
    expect(otherPath.status).toBe(201);
    api.gate.shut();
  });
});

describe("a key", () => {
  test("is not used up by a refused request", async () => {
    const name = freshName();
    await post(name, `first-${name}`);
    const key = `second-${name}`;
    expect((await post(name, key)).body["code"]).toBe("name_taken");
    const corrected = await post(`${name}-b`, key);
    expect(corrected.status).toBe(202);
    expect(corrected.headers.get("idempotency-replayed")).toBeNull();
  });

  test("is refused while the first request is not answered, and works afterwards", async () => {
    const name = freshName();
    const key = `key-${name}`;
    api.gate.shut();
    const first = post(name, key, "/v1/slow");
    await api.gate.entered;
    const second = await post(name, key, "/v1/slow");
    expect(second.status).toBe(409);
    expect(second.body["code"]).toBe("idempotency_key_in_progress");
    expect(second.body["retry"]).toBe("temporary");
    expect(second.headers.get("retry-after")).toBe("1");
    api.gate.open();
    expect((await first).status).toBe(201);
    const third = await post(name, key, "/v1/slow");
    expect(third.headers.get("idempotency-replayed")).toBe("true");
    expect(third.body).toEqual((await first).body);
  });

  test("used by twenty at once makes one thing", async () => {
    const name = freshName();
    const key = `key-${name}`;
    const answers = await Promise.all(Array.from({ length: 20 }, () => post(name, key)));
    for (const { status, body } of answers) {
      if (status !== 202) expect(body).toMatchObject({ status: 409, code: "idempotency_key_in_progress" });
    }
    const firsts = answers.filter(
      (answer) => answer.status === 202 && answer.headers.get("idempotency-replayed") === null,
    );
    expect(firsts).toHaveLength(1);
    expect(await countThings(name)).toBe(1);
  });

  test("of a wrong form is refused", async () => {
    for (const key of ["x".repeat(256), "with space"]) {
      const answer = await post(freshName(), key);
      expect(answer.status).toBe(422);
      expect(answer.body["violations"]).toMatchObject([{ pointer: "Idempotency-Key" }]);
    }
  });

  test("is forgotten after a day", async () => {
    const name = freshName();
    const key = `key-${name}`;
    await post(name, key);
    const dayAgo = new Date(Date.now() - KEY_LIFETIME_HOURS * 3_600_000 - 1000);
    await api.database.db.idempotencyKey.updateMany({ where: { key }, data: { createdAt: dayAgo } });
    expect((await post(name, key)).body["code"]).toBe("name_taken");
    const other = await post(`${name}-b`, key);
    expect(other.status).toBe(202);

    await api.database.db.idempotencyKey.updateMany({ where: { key }, data: { createdAt: dayAgo } });
    expect(await deleteOutlivedKeys(api.database.db, new Date(), 10)).toBe(1);
    expect(await api.database.db.idempotencyKey.count({ where: { key } })).toBe(0);
  });
});
