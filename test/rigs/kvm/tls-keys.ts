import { copyFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { makeSecretDir } from "./rig-dirs.ts";

/** PEM texts with which a client is let in. */
export interface TlsCredentials {
  readonly caCertificate: string;
  readonly clientCertificate: string;
  readonly clientKey: string;
}

/** Makes an own CA, a server certificate for the address and a client certificate; RSA, for libvirt refuses ECDSA. */
export async function makeTlsKeys(dir: string, name: string, address: string): Promise<TlsCredentials> {
  const keys = makeSecretDir(dir, "tls");
  await request(keys, "ca", "drover test CA", [
    "basicConstraints=critical,CA:TRUE",
    "keyUsage=critical,keyCertSign",
  ]);
  const alternatives = `subjectAltName=IP:${address},DNS:${name}`;
  await Promise.all([
    request(keys, "server", name, [...leaf("serverAuth"), alternatives], "ca"),
    request(keys, "client", "drover", leaf("clientAuth"), "ca"),
  ]);
  const daemonDir = makeSecretDir(dir, "etc/pki");
  for (const file of ["ca.pem", "server.pem", "server-key.pem"])
    copyFileSync(join(keys, file), join(daemonDir, file));
  const pem = (file: string): string => readFileSync(join(keys, file), "utf8");
  return {
    caCertificate: pem("ca.pem"),
    clientCertificate: pem("client.pem"),
    clientKey: pem("client-key.pem"),
  };
}

function leaf(use: "serverAuth" | "clientAuth"): string[] {
  return [
    "basicConstraints=critical,CA:FALSE",
    "keyUsage=digitalSignature,keyEncipherment",
    `extendedKeyUsage=${use}`,
  ];
}

async function request(
  dir: string,
  file: string,
  commonName: string,
  extensions: string[],
  ca?: string,
): Promise<void> {
  const signer = ca === undefined ? [] : ["-CA", `${ca}.pem`, "-CAkey", `${ca}-key.pem`];
  const files = ["-keyout", `${file}-key.pem`, "-out", `${file}.pem`];
  const subject = ["-subj", `/CN=${commonName}`, "-days", "2", "-config", "/dev/null"];
  const added = extensions.flatMap((extension) => ["-addext", extension]);
  await execa(
    "openssl",
    ["req", "-x509", "-newkey", "rsa:2048", "-nodes", ...files, ...subject, ...signer, ...added],
    { cwd: dir },
  );
}
