import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  createToken,
  getToken,
  listHosts,
  listTokens,
  listVms,
  revokeToken,
} from "../../openapi/sdk/index.ts";
import type { Db } from "../../src/db/client.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { ensureAdminToken, revoke } from "../../src/tokens/token-service.ts";
import { startApi, type TestApi } from "../fixtures/api.ts";

let api: TestApi;

beforeAll(async () => {
  api = await startApi();
});

afterAll(async () => {
  await api.close();
});

async function newToken(body: { name: string; project?: string; expiresAt?: string }) {
  const { data, response } = await createToken({ client: api.client, body });
  expect(response?.status).toBe(201);
  return { id: data?.token.id ?? "", secret: data?.secret ?? "", token: data?.token };
}

describe("a new token", () => {
  test("is shown once and works", async () => {
    const { id, secret, token } = await newToken({ name: "ci" });
    expect(secret).toMatch(/^drover_[A-Za-z0-9_-]{43}$/);
    expect(token).toMatchObject({ name: "ci", project: null, expiresAt: null, lastUsedAt: null });
    const { data } = await getToken({ client: api.clientFor(secret), path: { token: "ci" } });
    expect(data?.id).toBe(id);
    expect(JSON.stringify(data)).not.toContain(secret);
    const shown = await getToken({ client: api.client, path: { token: id } });
    expect(shown.data?.lastUsedAt).not.toBeNull();
    const row = await api.database.db.apiToken.findUniqueOrThrow({ where: { id } });
    expect(Buffer.from(row.secretHash).toString("latin1")).not.toContain(secret);
  });

  test("asked for twice with a key is one token, and its secret is not shown again", async () => {
    const headers = { "Idempotency-Key": "token-1" };
    const first = await createToken({ client: api.client, body: { name: "twice" }, headers });
    const again = await createToken({ client: api.client, body: { name: "twice" }, headers });
    expect(again.response?.status).toBe(201);
    expect(again.data?.token.id).toBe(first.data?.token.id);
    expect(again.data).not.toHaveProperty("secret");
    const kept = await api.database.db.idempotencyKey.findFirstOrThrow({ where: { key: "token-1" } });
    expect(JSON.stringify(kept.body)).not.toContain("drover_");
  });

  test("needs a free name, a project that is there, and an end in the future", async () => {
    await newToken({ name: "taken" });
    const refusals = await Promise.all([
      createToken({ client: api.client, body: { name: "taken" } }),
      createToken({ client: api.client, body: { name: "homeless", project: "nowhere" } }),
      createToken({ client: api.client, body: { name: "late", expiresAt: "2020-01-01T00:00:00Z" } }),
    ]);
    expect(refusals.map(({ error }) => error?.code)).toEqual(["name_taken", "not_found", "invalid_request"]);
  });
});

describe("a token that is bound to a project", () => {
  test("reaches its project and nothing else", async () => {
    const { secret } = await newToken({ name: "bound", project: "default" });
    const client = api.clientFor(secret);
    expect((await listVms({ client })).response?.status).toBe(200);
    expect((await listVms({ client, query: { project: "default" } })).response?.status).toBe(200);
    for (const refused of [
      await listVms({ client, query: { project: "elsewhere" } }),
      await listHosts({ client }),
      await listTokens({ client }),
    ]) {
      expect(refused.error?.code).toBe("forbidden");
    }
  });
});

describe("an expired token", () => {
  test("does not work", async () => {
    const { id, secret } = await newToken({ name: "brief", expiresAt: "2100-01-01T00:00:00Z" });
    await api.database.db.apiToken.update({
      where: { id },
      data: { expiresAt: new Date(Date.now() - 1000) },
    });
    expect((await listVms({ client: api.clientFor(secret) })).error?.code).toBe("unauthenticated");
  });
});

describe("revoking", () => {
  test("ends a token at once, frees its name and leaves the list", async () => {
    const { id, secret } = await newToken({ name: "gone" });
    expect((await revokeToken({ client: api.client, path: { token: "gone" } })).response?.status).toBe(204);
    expect((await listVms({ client: api.clientFor(secret) })).error?.code).toBe("unauthenticated");
    expect((await getToken({ client: api.client, path: { token: id } })).error?.code).toBe("not_found");
    expect((await revokeToken({ client: api.client, path: { token: "gone" } })).error?.code).toBe(
      "not_found",
    );
    await newToken({ name: "gone" });
  });

  test("the last one that reaches everything is refused, also when two go at once", async () => {
    const other = await startApi();
    const { db } = other.database;
    await createToken({ client: other.client, body: { name: "second" } });
    await createToken({ client: other.client, body: { name: "bound", project: "default" } });
    const revoked = Promise.withResolvers<undefined>();
    const commit = Promise.withResolvers<undefined>();
    const first = db.transaction(async (tx) => {
      await revoke(tx, "second", new Date());
      revoked.resolve(undefined);
      await commit.promise;
    });
    await revoked.promise;
    let answered = false;
    const second = revokeToken({ client: other.client, path: { token: "admin" } }).finally(() => {
      answered = true;
    });
    // Either it waits for the first, as it must, or it has been answered too early.
    await expect.poll(async () => answered || (await waitsForLock(db)), { timeout: 30_000 }).toBe(true);
    commit.resolve(undefined);
    await first;
    expect((await second).error?.code).toBe("conflict");
    await other.close();
  });
});

async function waitsForLock(db: Db): Promise<boolean> {
  const rows = await db.$queryRaw<{ waits: boolean }[]>`
    SELECT EXISTS (SELECT FROM pg_stat_activity
      WHERE datname = current_database() AND wait_event_type = 'Lock') AS waits`;
  return rows[0]?.waits === true;
}

describe("the list", () => {
  test("goes by name in pages, each token once", async () => {
    for (let count = 0; count < 5; count++) await newToken({ name: `page-${count}` });
    const names: string[] = [];
    let pageToken: string | undefined;
    do {
      const query = { pageSize: 2, ...(pageToken === undefined ? {} : { pageToken }) };
      const { data } = await listTokens({ client: api.client, query });
      expect(data?.items.length).toBeLessThanOrEqual(2);
      names.push(...(data?.items.map(({ name }) => name) ?? []));
      pageToken = data?.nextPageToken;
    } while (pageToken !== undefined);
    expect(names).toEqual([...new Set(names)]);
    expect(names).toEqual(expect.arrayContaining(["admin", "page-0", "page-4"]));
  });

  test("refuses a page token that it did not give", async () => {
    for (const pageToken of ["x", "WzEsIngiLCJ5IiwieiJd", "%%%"]) {
      const { error } = await listTokens({ client: api.client, query: { pageToken } });
      expect(error?.code).toBe("invalid_request");
    }
  });
});

describe("the first token", () => {
  test("is made once, however many processes start together", async () => {
    const other = await startApi();
    await other.database.db.apiToken.deleteMany();
    const made = await Promise.all([1, 2, 3].map(() => ensureAdminToken(other.database.db, systemClock)));
    expect(made.filter((secret) => secret !== null)).toHaveLength(1);
    await other.close();
  });

  test("can be configured; a revoked one stays revoked", async () => {
    const secret = "a-configured-secret-of-some-length";
    expect(await ensureAdminToken(api.database.db, systemClock, secret)).toBeNull();
    const client = api.clientFor(secret);
    expect((await listTokens({ client })).response?.status).toBe(200);
    const { data } = await listTokens({ client });
    const configured = data?.items.find(({ name }) => name.startsWith("admin-"));
    await revokeToken({ client: api.client, path: { token: configured?.name ?? "" } });
    await ensureAdminToken(api.database.db, systemClock, secret);
    expect((await listTokens({ client })).error?.code).toBe("unauthenticated");
  });
});
