import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  createSshKey,
  createToken,
  deleteSshKey,
  getSshKey,
  listEvents,
  listSshKeys,
  type SshKey,
  updateSshKey,
} from "../../openapi/sdk/index.ts";
import { newId, type ProjectId } from "../../src/lib/ids.ts";
import { clientOf, ok, problemOf, startTestService, type TestService } from "../fixtures/service.ts";
import { publicKey } from "../fixtures/ssh-keys.ts";

let service: TestService;
beforeAll(async () => {
  service = await startTestService();
});
afterAll(async () => {
  await service.stop();
});

async function addKey(name: string, labels: Record<string, string> = {}): Promise<SshKey> {
  const body = { name, publicKey: publicKey(name), labels };
  return await ok(createSshKey({ client: service.client, body }));
}

function keyNow(sshKey: string): Promise<SshKey> {
  return ok(getSshKey({ client: service.client, path: { sshKey } }));
}

describe("a new ssh key", () => {
  it("is there with its fingerprint, by id and by name", async () => {
    const body = { name: "ada", publicKey: `${publicKey("ada")}\n`, labels: { team: "web" } };
    const { data, response } = await createSshKey({ client: service.client, body });
    expect(response?.status).toBe(201);
    expect(response?.headers.get("etag")).toBe('"1"');
    expect(response?.headers.get("location")).toBe(`/v1/ssh-keys/${data?.id}`);
    expect(data).toMatchObject({
      ...{ name: "ada", project: "default", labels: { team: "web" }, generation: 1 },
      ...{ type: "ssh-ed25519", publicKey: publicKey("ada"), comment: "ada@test" },
      fingerprint: expect.stringMatching(/^SHA256:[A-Za-z0-9+/]{43}$/) as unknown,
    });
    expect(await keyNow("ada")).toEqual(data);
    expect(await keyNow(data?.id ?? "")).toEqual(data);
  });

  it("asked for twice with a key is one", async () => {
    const request = {
      client: service.client,
      body: { name: "once", publicKey: publicKey("once") },
      headers: { "Idempotency-Key": "ssh-1" },
    };
    const first = await createSshKey(request);
    const again = await createSshKey(request);
    expect(again.response?.status).toBe(201);
    expect(again.response?.headers.get("idempotency-replayed")).toBe("true");
    expect(again.data).toEqual(first.data);
  });

  it("needs a free name", async () => {
    await addKey("taken");
    const body = { name: "taken", publicKey: publicKey("other") };
    expect(await problemOf(createSshKey({ client: service.client, body }))).toMatchObject({
      httpStatus: 409,
      code: "name_taken",
    });
  });

  it.each([
    ["options", `no-pty ${publicKey("x")}`],
    ["a private key", "-----BEGIN OPENSSH PRIVATE KEY-----"],
    ["two keys", `${publicKey("x")}\n${publicKey("y")}`],
    ["nothing", ""],
  ])("is no line with %s", async (_what, text) => {
    const body = { name: "wrong", publicKey: text };
    const problem = await problemOf(createSshKey({ client: service.client, body }));
    expect(problem).toMatchObject({
      httpStatus: 422,
      code: "invalid_request",
      violations: [{ pointer: "/publicKey" }],
    });
    expect(await ok(listSshKeys({ client: service.client, query: { name: "wrong" } }))).toEqual({
      items: [],
    });
  });
});

describe("ssh keys", () => {
  it("are listed page by page, in both orders, by name, fingerprint and label", async () => {
    const made = [
      await addKey("page-a", { page: "y" }),
      await addKey("page-b", { page: "y" }),
      await addKey("page-c"),
    ];
    const names = async (query: NonNullable<Parameters<typeof listSshKeys>[0]>["query"]) => {
      const found: string[] = [];
      let pageToken: string | undefined;
      do {
        const page = await ok(
          listSshKeys({
            client: service.client,
            query: { ...query, pageSize: 1, ...(pageToken === undefined ? {} : { pageToken }) },
          }),
        );
        found.push(...page.items.map(({ name }) => name));
        pageToken = page.nextPageToken;
      } while (pageToken !== undefined);
      return found;
    };
    expect((await names({})).filter((name) => name.startsWith("page-"))).toEqual([
      "page-a",
      "page-b",
      "page-c",
    ]);
    expect((await names({ orderBy: "-createdAt" })).slice(0, 3)).toEqual(["page-c", "page-b", "page-a"]);
    expect(await names({ labelSelector: "page=y" })).toEqual(["page-a", "page-b"]);
    expect(await names({ fingerprint: made[1]?.fingerprint ?? "" })).toEqual(["page-b"]);
    expect(await names({ name: "page-c" })).toEqual(["page-c"]);
  });

  it("change their labels only, and only where nobody was faster", async () => {
    await addKey("labelled", { a: "1" });
    const path = { sshKey: "labelled" };
    const body = { labels: { a: null, b: "2" } };
    const changed = await updateSshKey({
      client: service.client,
      path,
      body,
      headers: { "If-Match": '"1"' },
    });
    expect(changed.data).toMatchObject({ labels: { b: "2" }, generation: 2 });
    expect(changed.response?.headers.get("etag")).toBe('"2"');
    const late = { client: service.client, path, headers: { "If-Match": '"1"' } };
    expect(await problemOf(updateSshKey({ ...late, body }))).toMatchObject({ code: "precondition_failed" });
    expect(await problemOf(deleteSshKey(late))).toMatchObject({ code: "precondition_failed" });
    const other = { publicKey: publicKey("x") } as object;
    expect(await problemOf(updateSshKey({ client: service.client, path, body: other }))).toMatchObject({
      violations: [{ pointer: "/publicKey" }],
    });
  });

  it("are told of from their creation to their end", async () => {
    const { id, fingerprint } = await addKey("told");
    const path = { sshKey: "told" };
    await ok(updateSshKey({ client: service.client, path, body: { labels: { a: "1" } } }));
    expect((await deleteSshKey({ client: service.client, path })).response?.status).toBe(204);
    const query = { after: "0", subject: id };
    const told = async () => (await ok(listEvents({ client: service.client, query }))).items;
    await expect.poll(async () => (await told()).length).toBe(3);
    const items = await told();
    expect(items.map(({ type }) => type)).toEqual(["sshKey.created", "sshKey.updated", "sshKey.deleted"]);
    for (const event of items)
      expect(event).toMatchObject({ subject: { kind: "sshKey", id, name: "told" }, data: { fingerprint } });
    expect(await problemOf(getSshKey({ client: service.client, path }))).toMatchObject({ code: "not_found" });
  });

  it("belong to their project", async () => {
    await addKey("ours");
    const elsewhere = { id: newId<ProjectId>(), name: "elsewhere" };
    await service.database.db.project.create({ data: elsewhere });
    const body = { name: "elsewhere", project: "elsewhere" };
    const { secret = "" } = await ok(createToken({ client: service.client, body }));
    const client = clientOf(service.url, secret);
    expect(await ok(listSshKeys({ client }))).toEqual({ items: [] });
    expect(await problemOf(getSshKey({ client, path: { sshKey: "ours" } }))).toMatchObject({
      code: "not_found",
    });
    const theirs = await ok(createSshKey({ client, body: { name: "ours", publicKey: publicKey("ours") } }));
    expect(theirs.project).toBe("elsewhere");
    expect((await keyNow("ours")).id).not.toBe(theirs.id);
  });
});
