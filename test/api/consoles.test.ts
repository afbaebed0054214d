import { createHash } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  createToken,
  getVmScreenshot,
  listEvents,
  type OpenConsole,
  openVmConsole,
  revokeToken,
  stopVm,
} from "../../openapi/sdk/index.ts";
import { connectConsole } from "../fixtures/console-client.ts";
import {
  addHost,
  addVm,
  clientOf,
  ok,
  problemOf,
  startTestService,
  type TestService,
} from "../fixtures/service.ts";

let service: TestService;

beforeAll(async () => {
  service = await startTestService();
  await addHost(service, "big", "sim+kvm://consoles?cpus=64&memoryGib=256");
  await addVm(service, "web");
});
afterAll(async () => {
  await service.stop();
});

const PATIENCE = { timeout: 30_000, interval: 20 };

/** A ticket for a VM's console, as the API gives it. */
async function ask(vm: string, body: OpenConsole = { kind: "serial" }, client = service.client) {
  const { url, webSocketUrl, ...rest } = await ok(openVmConsole({ client, path: { vm }, body }));
  if (url === undefined || webSocketUrl === undefined) throw new Error("no URL was given");
  return { ...rest, url, webSocketUrl, secret: url.slice(url.lastIndexOf("/") + 1) };
}

async function tickets(): Promise<number> {
  return await service.database.db.consoleTicket.count();
}

describe("asking for a console", () => {
  it("gives a page and a WebSocket for a minute, and keeps the secret as a hash", async () => {
    const { url, webSocketUrl, secret, kind, expiresAt } = await ask("web");
    expect(kind).toBe("serial");
    expect(url).toBe(`${service.url}/console/${secret}`);
    expect(webSocketUrl).toBe(`${service.url.replace("http", "ws")}/v1/consoles/${secret}`);
    const secondsLeft = (Date.parse(expiresAt) - Date.now()) / 1000;
    expect(secondsLeft).toBeGreaterThan(20);
    expect(secondsLeft).toBeLessThan(100);
    const rows = await service.database.db.consoleTicket.findMany();
    expect(JSON.stringify(rows)).not.toContain(secret);
    const hash = createHash("sha256").update(secret).digest("hex");
    expect(rows.map((row) => Buffer.from(row.secretHash).toString("hex"))).toContain(hash);
  });

  it("gives no secret to a repeated request", async () => {
    const request = () =>
      openVmConsole({
        client: service.client,
        path: { vm: "web" },
        headers: { "Idempotency-Key": "console-once" },
        body: { kind: "serial" },
      });
    const first = await ok(request());
    const again = await ok(request());
    expect(first.url).toContain("/console/console_");
    expect(again).toEqual({ kind: "serial", expiresAt: first.expiresAt });
  });

  it("is refused for a screen that the host does not show, and keeps nothing", async () => {
    const before = await tickets();
    const asked = openVmConsole({ client: service.client, path: { vm: "web" }, body: { kind: "vnc" } });
    expect(await problemOf(asked)).toMatchObject({
      httpStatus: 409,
      code: "capability_unsupported",
      details: { capability: "vnc" },
    });
    const shot = getVmScreenshot({ client: service.client, path: { vm: "web" } });
    expect(await problemOf(shot)).toMatchObject({ httpStatus: 409, code: "capability_unsupported" });
    expect(await tickets()).toBe(before);
  });

  it("is refused for a VM that is off, with its power", async () => {
    await addVm(service, "cold", { runPolicy: "stopped" });
    const asked = openVmConsole({ client: service.client, path: { vm: "cold" }, body: { kind: "serial" } });
    expect(await problemOf(asked)).toMatchObject({
      httpStatus: 409,
      code: "invalid_state",
      details: { power: "off" },
    });
  });

  it("is refused while the host does not answer", async () => {
    const uri = "sim+kvm://silent?cpus=8&memoryGib=16";
    await addHost(service, "silent", uri);
    await addVm(service, "far", { placement: { host: "silent" } });
    await service.sim.setHostDown(uri, true);
    await expect
      .poll(async () => {
        const asked = await openVmConsole({
          client: service.client,
          path: { vm: "far" },
          body: { kind: "serial" },
        });
        return asked.response?.status;
      }, PATIENCE)
      .toBe(503);
    await service.sim.setHostDown(uri, false);
  });

  it("is refused for a VM of a project that the token does not reach", async () => {
    await service.database.db.project.create({
      data: { id: "0199f3a2-7c11-7e02-9f1b-2b7d1a3c5e77", name: "other" },
    });
    const body = { name: "elsewhere", project: "other" };
    const { secret } = await ok(createToken({ client: service.client, body }));
    const client = clientOf(service.url, secret);
    const asked = openVmConsole({
      client,
      path: { vm: "web" },
      body: { kind: "serial" },
      query: { project: "other" },
    });
    expect(await problemOf(asked)).toMatchObject({ httpStatus: 404 });
    const reaching = openVmConsole({
      client,
      path: { vm: "web" },
      body: { kind: "serial" },
      query: { project: "default" },
    });
    expect(await problemOf(reaching)).toMatchObject({ httpStatus: 403 });
  });
});

describe("a serial console", () => {
  it("takes what is typed and shows the answer, once, and tells who opened it", async () => {
    const { webSocketUrl } = await ask("web");
    const console = await connectConsole(webSocketUrl);
    console.type('echo DROVER-"ECHO" hello\r');
    await expect.poll(console.text, PATIENCE).toContain("DROVER-ECHO hello");
    expect(console.text()).toContain("DROVER-GUEST-UP");
    await expect(connectConsole(webSocketUrl)).rejects.toThrow("404");
    console.socket.close();
    await expect
      .poll(async () => {
        const query = { type: ["vm.console.opened"], after: "0" };
        return (await ok(listEvents({ client: service.client, query }))).items.at(-1);
      }, PATIENCE)
      .toMatchObject({
        subject: { kind: "vm", name: "web" },
        data: { kind: "serial", force: false, actor: expect.stringContaining("token:admin") as string },
      });
  });

  it("is one client's at a time, until another takes it over", async () => {
    await addVm(service, "shared");
    const first = await connectConsole((await ask("shared")).webSocketUrl);
    await expect.poll(first.text, PATIENCE).toContain("DROVER-GUEST-UP");
    const second = await connectConsole((await ask("shared")).webSocketUrl);
    expect(await second.closed).toMatchObject({
      code: 4409,
      reason: expect.stringContaining("open already") as string,
    });
    const third = await connectConsole((await ask("shared", { kind: "serial", force: true })).webSocketUrl);
    expect(await first.closed).toMatchObject({ code: 4409 });
    third.type("echo still here\r");
    await expect.poll(third.text, PATIENCE).toContain("\nstill here");
    third.socket.close();
  });

  it("is closed when the VM goes off", async () => {
    await addVm(service, "brief");
    const console = await connectConsole((await ask("brief")).webSocketUrl);
    const off = {
      client: service.client,
      path: { vm: "brief" },
      body: { mode: "force" as const },
      query: { wait: 60 },
    };
    await ok(stopVm(off));
    expect(await console.closed).toEqual({ code: 1000, reason: "The VM is off." });
  });
});

describe("many consoles of one VM", () => {
  it("are refused beyond eight at once in one process", async () => {
    const uri = "sim+kvm://hanging?cpus=8&memoryGib=16";
    await addHost(service, "hanging", uri);
    await addVm(service, "wanted", { placement: { host: "hanging" } });
    await service.sim.hangNextCalls(uri, "openSerialConsole", 8);
    const open = [];
    for (let count = 0; count < 8; count++)
      open.push(await connectConsole((await ask("wanted")).webSocketUrl));
    const { webSocketUrl } = await ask("wanted");
    await expect(connectConsole(webSocketUrl)).rejects.toThrow("429");
    for (const { socket } of open) socket.terminate();
    await service.sim.clearFaults(uri);
  });
});

describe("a ticket", () => {
  it("is over after its time", async () => {
    const { url, webSocketUrl } = await ask("web");
    await service.database.db.consoleTicket.updateMany({ data: { expiresAt: new Date(Date.now() - 1000) } });
    expect((await fetch(url)).status).toBe(404);
    await expect(connectConsole(webSocketUrl)).rejects.toThrow("404");
    await ask("web");
    expect(await tickets()).toBe(1);
  });

  it("is over with the token of who asked for it", async () => {
    const { secret, token } = await ok(createToken({ client: service.client, body: { name: "leaving" } }));
    const { webSocketUrl } = await ask("web", { kind: "serial" }, clientOf(service.url, secret));
    await revokeToken({ client: service.client, path: { token: token.id } });
    await expect(connectConsole(webSocketUrl)).rejects.toThrow("404");
  });

  it("is not good for what it is not, and refuses what is no WebSocket", async () => {
    const { webSocketUrl, secret } = await ask("web");
    await expect(
      connectConsole(webSocketUrl.replace(/.$/, (last) => (last === "A" ? "B" : "A"))),
    ).rejects.toThrow("404");
    const plain = await fetch(`${service.url}/v1/consoles/${secret}`);
    expect(plain.status).toBe(426);
    expect(plain.headers.get("upgrade")).toBe("websocket");
    expect(await plain.json()).toMatchObject({ code: "upgrade_required" });
    expect((await fetch(`${service.url}/v1/consoles/web`)).status).toBe(404);
    await expect(connectConsole(`${service.url.replace("http", "ws")}/v1/nothing`)).rejects.toThrow("404");
  });

  it("is taken once, by whichever process is asked first", async () => {
    const another = await service.startAnother({ DROVER_ROLES: "api" });
    const { webSocketUrl } = await ask("web");
    const { port } = new URL(another.url ?? "");
    const elsewhere = Object.assign(new URL(webSocketUrl), { port }).href;
    const all = [webSocketUrl, elsewhere, webSocketUrl, elsewhere].map((url) => connectConsole(url));
    const outcomes = await Promise.allSettled(all);
    const open = outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value] : []));
    expect(open.length).toBe(1);
    const [only] = open;
    await expect.poll(() => only?.text(), PATIENCE).toContain("DROVER-GUEST-UP");
    only?.socket.close();
    const there = await connectConsole(
      Object.assign(new URL((await ask("web", { kind: "serial", force: true })).webSocketUrl), { port }).href,
    );
    await expect.poll(there.text, PATIENCE).toContain("DROVER-GUEST-UP");
    await another.stop();
    expect(await there.closed).toMatchObject({ code: 1001 });
  });
});

describe("the page", () => {
  it("uses nothing up, loads only what we serve, and tells when its link is over", async () => {
    const { url, webSocketUrl } = await ask("web", { kind: "serial", force: true });
    const page = await fetch(url);
    expect(page.status).toBe(200);
    const policy = page.headers.get("content-security-policy") ?? "";
    expect(policy).toContain("default-src 'none'");
    expect(policy).not.toMatch(/https?:|unsafe/);
    expect(page.headers.get("referrer-policy")).toBe("no-referrer");
    const html = await page.text();
    expect(html).toContain("web: serial console");
    const nonces = [...html.matchAll(/nonce="([^"]+)"/g)].map(([, nonce]) => nonce ?? "");
    expect(new Set(nonces).size).toBe(1);
    expect(policy).toContain(`'nonce-${nonces[0] ?? ""}'`);
    const sources = [...html.matchAll(/(?:src|href)="(\/[^"]+)"/g)].map(([, source]) => source ?? "");
    const imports = [...html.matchAll(/:"(\/console\/assets\/[^"]+)"/g)].map(([, source]) => source ?? "");
    expect(sources.length + imports.length).toBe(6);
    for (const path of [...sources, ...imports]) {
      const asset = await fetch(`${service.url}${path}`);
      expect([path, asset.status]).toEqual([path, 200]);
      expect(asset.headers.get("content-type")).toMatch(/^text\/(javascript|css);/);
    }
    const console = await connectConsole(webSocketUrl);
    console.socket.close();
    const late = await fetch(url);
    expect(late.status).toBe(404);
    expect(await late.text()).toContain("This link is over");
  });

  it.each([
    "page/../../console-store.ts",
    "%2e%2e/console-store.ts",
    "novnc/package.json",
    "page/novnc.d.ts",
    "",
  ])("gives no other file: %s", async (path) => {
    expect((await fetch(`${service.url}/console/assets/${path}`)).status).toBe(404);
  });
});
