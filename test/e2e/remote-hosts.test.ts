import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  createVm,
  deleteHost,
  deleteVm,
  getHost,
  getVmConsoleLog,
  type HostCredentials,
  registerHost,
} from "../../openapi/sdk/index.ts";
import { startApi, type TestApi } from "../fixtures/api.ts";
import { GUEST_BOOT, uploadGuest } from "../fixtures/guest-boot.ts";
import { type KvmHost, startKvmHost } from "../rigs/kvm/kvm-host.ts";

let api: TestApi;
let host: KvmHost;

beforeAll(async () => {
  api = await startApi();
  host = await startKvmHost({ ssh: true, tls: true });
  await uploadGuest(api.client);
}, 180_000);

afterAll(async () => {
  await api.close();
  await host.stop();
}, 120_000);

function register(name: string, uri: string, credentials: HostCredentials) {
  return registerHost({
    client: api.client,
    body: { name, uri, accelerator: "tcg", credentials },
    query: { wait: 30 },
  });
}

/** Credentials that the emulated host was asked to make. */
function given<T>(credentials: T | undefined): T {
  if (credentials === undefined) throw new Error("the host has no credentials of this kind");
  return credentials;
}

/** Makes a guest on the host, hears it on its console, and removes it, all over the host's own transport. */
async function runGuest(on: string): Promise<void> {
  const { client } = api;
  const vm = `guest-on-${on}`;
  const { data } = await createVm({
    client,
    throwOnError: true,
    query: { wait: 60 },
    body: {
      name: vm,
      spec: { cpu: { count: 1 }, memoryMib: 192, boot: GUEST_BOOT, placement: { host: on } },
    },
  });
  expect(data.operation.state).toBe("succeeded");
  const brought = data.operation.steps.find(({ name }) => name === "bring-boot-files")?.progress;
  expect(brought?.done).toBe(brought?.total);
  const deadline = performance.now() + 120_000;
  let log = "";
  while (!log.includes("DROVER-GUEST-UP") && performance.now() < deadline) {
    await sleep(500);
    log = (await getVmConsoleLog({ client, throwOnError: true, path: { vm }, parseAs: "text" })).data;
  }
  expect(log).toContain("DROVER-GUEST-UP");
  const deleted = await deleteVm({ client, throwOnError: true, path: { vm }, query: { wait: 60 } });
  expect(deleted.data.operation.state).toBe("succeeded");
  expect(await host.virsh(["list", "--all", "--uuid"])).toBe("");
  expect((await deleteHost({ client, path: { host: on } })).response?.status).toBe(204);
}

describe("a host over ssh", () => {
  it("is refused with its fingerprint while its key is unknown, and leaves nothing", async () => {
    const { privateKey } = given(host.credentials.ssh);
    const { error, response } = await register("by-ssh", host.sshUri ?? "", { ssh: { privateKey } });
    expect(response?.status).toBeGreaterThanOrEqual(400);
    expect(response?.status).toBeLessThan(500);
    expect(error).toMatchObject({ code: "host_key_unknown" });
    expect(JSON.stringify(error)).toMatch(/SHA256:[A-Za-z0-9+/]{43}/);
    expect((await getHost({ client: api.client, path: { host: "by-ssh" } })).response?.status).toBe(404);
  });

  it("runs a guest", { timeout: 300_000 }, async () => {
    const { data, error } = await register("by-ssh", host.sshUri ?? "", { ssh: given(host.credentials.ssh) });
    expect(error).toBeUndefined();
    expect(data?.host.status).toMatchObject({ state: "ready", driver: "libvirt" });
    expect(JSON.stringify(data)).not.toContain("PRIVATE KEY");
    await runGuest("by-ssh");
  });
});

describe("a host over TLS", () => {
  it("is refused, or registered as unreachable, with credentials that are not its own", async () => {
    const tls = given(host.credentials.tls);
    const other = { ...tls, caCertificate: tls.clientCertificate };
    const { data, error } = await register("by-tls", host.tlsUri ?? "", { tls: other });
    if (error === undefined) {
      expect(data.host.status.state).not.toBe("ready");
      expect((await deleteHost({ client: api.client, path: { host: "by-tls" } })).response?.status).toBe(204);
    } else expect(error.status).toBeLessThan(500);
  });

  it("runs a guest", { timeout: 300_000 }, async () => {
    const { data, error } = await register("by-tls", host.tlsUri ?? "", { tls: given(host.credentials.tls) });
    expect(error).toBeUndefined();
    expect(data?.host.status).toMatchObject({ state: "ready" });
    await runGuest("by-tls");
  });
});
