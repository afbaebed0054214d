import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import tls from "node:tls";
import { afterAll, beforeAll, expect, test } from "vitest";
import { connectGetHostname, connectLibvirt } from "../../../src/libvirt-rpc/index.ts";
import { serve } from "./fake-daemon.ts";

const KEYS = { rsa: "rsa:2048", ec: "ec" } as const;
type KeyKind = keyof typeof KEYS;

let directory: string;

interface Certificate {
  readonly cert: string;
  readonly key: string;
}

/** Makes a certificate; signed by `ca` when there is one, else its own CA. */
function issue(name: string, kind: KeyKind, extensions: readonly string[], ca?: string): Certificate {
  const signer = ca === undefined ? [] : ["-CA", `${ca}.pem`, "-CAkey", `${ca}-key.pem`];
  const curve = kind === "ec" ? ["-pkeyopt", "ec_paramgen_curve:prime256v1"] : [];
  const added = extensions.flatMap((extension) => ["-addext", extension]);
  const files = ["-keyout", `${name}-key.pem`, "-out", `${name}.pem`];
  const subject = ["-subj", `/CN=${name}`, "-days", "2", "-config", "/dev/null"];
  const args = [
    "req",
    "-x509",
    "-newkey",
    KEYS[kind],
    ...curve,
    "-nodes",
    ...files,
    ...subject,
    ...signer,
    ...added,
  ];
  execFileSync("openssl", args, { cwd: directory, stdio: "pipe" });
  const pem = (file: string): string => readFileSync(path.join(directory, file), "utf8");
  return { cert: pem(`${name}.pem`), key: pem(`${name}-key.pem`) };
}

const CA = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"];
const SERVER = ["basicConstraints=critical,CA:FALSE", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
const CLIENT = ["basicConstraints=critical,CA:FALSE"];

const pki = {} as Record<KeyKind, { ca: Certificate; server: Certificate; client: Certificate }>;
let otherCa: Certificate;
let wrongName: Certificate;

beforeAll(() => {
  directory = mkdtempSync(path.join(tmpdir(), "libvirt-tls-"));
  for (const kind of ["rsa", "ec"] as const) {
    const ca = issue(`${kind}-ca`, kind, CA);
    const server = issue(`${kind}-server`, kind, SERVER, `${kind}-ca`);
    pki[kind] = { ca, server, client: issue(`${kind}-client`, kind, CLIENT, `${kind}-ca`) };
  }
  otherCa = issue("other-ca", "ec", CA);
  wrongName = issue("wrong-name", "ec", [...CLIENT, "subjectAltName=DNS:elsewhere.example"], "ec-ca");
});

afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});

interface ServerOptions {
  readonly certificate: Certificate;
  readonly ca: Certificate;
  /** What is sent before the protocol starts; libvirtd sends a 1, or hangs up. */
  readonly greeting?: Buffer | null;
}

async function withServer(options: ServerOptions, use: (port: number) => Promise<void>): Promise<void> {
  const { certificate, ca, greeting = Buffer.from([1]) } = options;
  const sockets = new Set<tls.TLSSocket>();
  const server = tls.createServer({ ...certificate, ca: ca.cert, requestCert: true }, (socket) => {
    sockets.add(socket);
    serve(socket, {
      onMessage: (message, peer) => {
        if (message.procedure !== connectGetHostname.number) return false;
        peer.reply(message, connectGetHostname.result, { hostname: "behind-tls" });
        return true;
      },
    });
    if (greeting === null) socket.end();
    else socket.write(greeting);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await use((server.address() as AddressInfo).port);
  } finally {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}

function connect(port: number, ca: Certificate, client: Certificate, host = "localhost") {
  const transport = { kind: "tls", host, port, ca: ca.cert, cert: client.cert, key: client.key } as const;
  return connectLibvirt({ transport, uri: "test:///default" });
}

test.each(["rsa", "ec"] as const)("speaks TLS with %s keys, by name and by address", async (kind) => {
  const { ca, server, client } = pki[kind];
  await withServer({ certificate: server, ca }, async (port) => {
    for (const host of ["localhost", "127.0.0.1"]) {
      const connection = await connect(port, ca, client, host);
      expect(await connection.call(connectGetHostname, undefined)).toEqual({ hostname: "behind-tls" });
      await connection.close();
    }
  });
});

test("refuses a server from another CA", async () => {
  const { ca, server, client } = pki.ec;
  await withServer({ certificate: server, ca }, async (port) => {
    await expect(connect(port, otherCa, client)).rejects.toMatchObject({
      name: "ConnectionError",
      kind: "tls",
    });
  });
});

test("refuses a server with the certificate of another", async () => {
  const { ca, client } = pki.ec;
  await withServer({ certificate: wrongName, ca }, async (port) => {
    await expect(connect(port, ca, client)).rejects.toMatchObject({ kind: "tls" });
    await expect(connect(port, ca, client, "127.0.0.1")).rejects.toThrow(/127\.0\.0\.1/);
  });
});

test("tells when the server does not take our certificate", async () => {
  const { ca, server } = pki.ec;
  await withServer({ certificate: server, ca }, async (port) => {
    await expect(connect(port, ca, pki.rsa.client)).rejects.toMatchObject({ kind: "tls" });
  });
});

test.each([
  ["hangs up", null],
  ["sends a 0", Buffer.from([0])],
])("tells when the daemon %s instead of letting us in", async (_what, greeting) => {
  const { ca, server, client } = pki.ec;
  await withServer({ certificate: server, ca, greeting }, async (port) => {
    await expect(connect(port, ca, client)).rejects.toMatchObject({ kind: "tls" });
  });
});

test("refuses a key that is none before it connects", async () => {
  const { ca, client } = pki.ec;
  const broken = { cert: client.cert, key: "no key at all" };
  await expect(connect(1, ca, broken)).rejects.toMatchObject({ kind: "tls" });
});

test("tells when nobody listens", async () => {
  const { ca, client } = pki.ec;
  await expect(connect(1, ca, client, "127.0.0.1")).rejects.toMatchObject({ kind: "refused" });
});
