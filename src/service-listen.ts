import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { Config } from "./config.ts";
import { messageOf } from "./lib/errors.ts";
import { StartupError } from "./lib/startup-error.ts";

/** What listens; a Fastify instance. */
interface Listening {
  listen(address: { readonly host: string; readonly port: number }): Promise<string>;
}

/** What a person has to do about an address on which we cannot listen, by the system's code. */
const ADVICE: Readonly<Record<string, string>> = {
  EADDRINUSE: "another program listens there: stop it, or choose another port",
  EACCES: "this user may not listen there: choose a port above 1023",
  EADDRNOTAVAIL: "this machine has no such address: choose one that it has, such as 127.0.0.1",
  ENOTFOUND: "there is no such name: give an address, such as 127.0.0.1",
};

/** Listens and returns the URL. Throws StartupError that names the variable and says what to do. */
export async function listen(app: Listening, address: Config["listen"]): Promise<string> {
  try {
    return await app.listen(address);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "";
    const advice = ADVICE[code];
    if (advice === undefined) throw error;
    throw new StartupError(`DROVER_LISTEN: cannot listen on ${address.host}:${address.port}: ${advice}`, {
      cause: error,
    });
  }
}

/** Reads certificate and key. Throws StartupError that names the variable whose file is not what it should be. */
export async function readTls({
  certPath,
  keyPath,
}: NonNullable<Config["tls"]>): Promise<{ cert: string; key: string }> {
  const cert = await readPem("DROVER_TLS_CERT", certPath, (text) => new X509Certificate(text));
  const key = await readPem("DROVER_TLS_KEY", keyPath, (text) => {
    if (new X509Certificate(cert).checkPrivateKey(createPrivateKey(text))) return;
    throw new Error("it is not the key of the certificate in DROVER_TLS_CERT");
  });
  return { cert, key };
}

async function readPem(variable: string, path: string, check: (text: string) => unknown): Promise<string> {
  try {
    const text = await readFile(path, "utf8");
    check(text);
    return text;
  } catch (error) {
    throw new StartupError(
      `${variable}: ${path} cannot be used: ${messageOf(error).split("\n", 1)[0] ?? ""}`,
      {
        cause: error,
      },
    );
  }
}
