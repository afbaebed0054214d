import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import * as rpc from "../../src/libvirt-rpc/index.ts";
import { type KvmHost, startKvmHost } from "../rigs/kvm/kvm-host.ts";

const TLS_PORT = 16_514;
const TCP_PORT = 16_509;

let host: KvmHost;

beforeAll(async () => {
  host = await startKvmHost({ tls: true, tcp: true, ssh: true });
});

afterAll(async () => {
  await host.stop();
});

function address(): string {
  if (host.address === undefined) throw new Error("the host has no address");
  return host.address;
}

async function hostnameOver(transport: rpc.Transport, uri = "qemu:///system"): Promise<string> {
  const connection = await rpc.connectLibvirt({ transport, uri });
  try {
    return (await connection.call(rpc.connectGetHostname, undefined)).hostname;
  } finally {
    await connection.close();
  }
}

/** A certificate no CA has signed but itself, and its key. The directory goes with the host. */
function strangerIn(directory: string): { cert: string; key: string } {
  const files = ["-keyout", "key.pem", "-out", "cert.pem"];
  const subject = ["-subj", "/CN=stranger", "-days", "2", "-config", "/dev/null"];
  execFileSync("openssl", ["req", "-x509", "-newkey", "rsa:2048", "-nodes", ...files, ...subject], {
    cwd: directory,
    stdio: "ignore",
  });
  const pem = (file: string): string => readFileSync(join(directory, file), "utf8");
  return { cert: pem("cert.pem"), key: pem("key.pem") };
}

test("TCP reaches the daemon", async () => {
  expect(await hostnameOver({ kind: "tcp", host: address(), port: TCP_PORT })).toBe(host.name);
});

describe("TLS", () => {
  function transport(): Extract<rpc.Transport, { kind: "tls" }> {
    const keys = host.credentials.tls;
    if (keys === undefined) throw new Error("the host has no TLS");
    const { caCertificate: ca, clientCertificate: cert, clientKey: key } = keys;
    return { kind: "tls", host: address(), port: TLS_PORT, ca, cert, key };
  }

  test("reaches the daemon with certificates of its CA", async () => {
    expect(await hostnameOver(transport())).toBe(host.name);
  });

  test("carries many calls at once, and none waits for a sign of life to be read", async () => {
    // A daemon that is asked for its capabilities is busy for a moment, so that calls pile up behind it.
    const keepalive = { intervalMs: 600_000, count: 3 };
    const connection = await rpc.connectLibvirt({ transport: transport(), uri: "qemu:///system", keepalive });
    try {
      for (const _round of [1, 2, 3, 4, 5]) {
        const calls = [
          rpc.connectGetHostname,
          rpc.connectGetCapabilities,
          rpc.connectGetType,
          rpc.nodeGetInfo,
        ];
        const answers = calls.map((procedure) => connection.call<undefined, unknown>(procedure, undefined));
        await Promise.all(answers);
      }
    } finally {
      await connection.close();
    }
  });

  test("refuses a daemon whose certificate is from another CA, and one that refuses ours", async () => {
    const { cert, key } = strangerIn(mkdtempSync(join(host.dir, "stranger-")));
    await expect(hostnameOver({ ...transport(), ca: cert })).rejects.toMatchObject({ kind: "tls" });
    await expect(hostnameOver({ ...transport(), cert, key })).rejects.toMatchObject({ kind: "tls" });
  });
});

describe("ssh", () => {
  function transport(): rpc.SshTransport & { readonly knownHosts: string } {
    const keys = host.credentials.ssh;
    if (keys === undefined) throw new Error("the host has no ssh");
    return { kind: "ssh", host: address(), user: "root", ...keys };
  }

  const leftOver = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith("libvirt-ssh-"));

  test("reaches the daemon through virt-ssh-helper, and leaves no key behind", async () => {
    const before = leftOver();
    const connection = await rpc.connectLibvirt({ transport: transport(), uri: "qemu:///system" });
    expect(await connection.call(rpc.connectGetHostname, undefined)).toEqual({ hostname: host.name });
    expect(leftOver()).toEqual(before);
    await connection.close();
  });

  test("reaches the daemon through a socket", async () => {
    const overSocket = { ...transport(), socketPath: "/run/libvirt/libvirt-sock" };
    expect(await hostnameOver(overSocket, "test:///default")).toBe(host.name);
  });

  test("refuses a host whose key is not known, and tells the key", async () => {
    const [, , key] = transport().knownHosts.trim().split(" ");
    const digest = execFileSync("openssl", ["dgst", "-sha256", "-binary"], {
      input: Buffer.from(key ?? "", "base64"),
    });
    const fingerprint = `SHA256:${digest.toString("base64").replace(/=+$/, "")}`;
    const before = leftOver();
    const refused = hostnameOver({ ...transport(), knownHosts: "" });
    await expect(refused).rejects.toMatchObject({
      name: "HostKeyUnknownError",
      kind: "host-key-unknown",
      changed: false,
      offered: { algorithm: "ssh-ed25519", fingerprint },
    });
    expect(leftOver()).toEqual(before);
  });

  test("refuses a host with another key than the known one", async () => {
    const strange = `${address()} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n`;
    await expect(hostnameOver({ ...transport(), knownHosts: strange })).rejects.toMatchObject({
      kind: "host-key-unknown",
      changed: true,
    });
  });

  test("tells when it is not let in, with what ssh said", async () => {
    const stranger = execFileSync(
      "openssl",
      ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
      {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "ignore"],
      },
    );
    const refused = hostnameOver({ ...transport(), privateKey: stranger });
    await expect(refused).rejects.toMatchObject({ kind: "auth" });
    await expect(hostnameOver({ ...transport(), privateKey: stranger })).rejects.toThrow("Permission denied");
  });

  test("tells when nobody listens, and what the far side lacks", async () => {
    await expect(hostnameOver({ ...transport(), port: 1 })).rejects.toMatchObject({ kind: "refused" });
    const nowhere = { ...transport(), socketPath: "/run/libvirt/no-such-sock" };
    await expect(hostnameOver(nowhere)).rejects.toThrow(/no-such-sock|No such file/);
  });

  test("ends its process with the connection", async () => {
    const connection = await rpc.connectLibvirt({ transport: transport(), uri: "qemu:///system" });
    const children = (): string =>
      execFileSync("ps", ["--no-headers", "-o", "comm", "--ppid", String(process.pid)], { encoding: "utf8" });
    expect(children()).toContain("ssh");
    await connection.close();
    expect(children()).not.toContain("ssh");
  });
});
