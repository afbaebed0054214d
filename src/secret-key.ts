import { randomBytes } from "node:crypto";
import { link, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { StartupError } from "./lib/startup-error.ts";

const KEY_BYTES = 32;
const FILE = "secret.key";

/**
 * The key that credentials are encrypted with, 32 bytes: the configured one (base64), else that of the file
 * `secret.key` in the data directory, which is made with the first start. Throws StartupError when the file holds anything else.
 */
export async function loadSecretKey(dataDir: string, configured: string | null): Promise<Uint8Array> {
  if (configured !== null) return Buffer.from(configured, "base64");
  await mkdir(dataDir, { recursive: true, mode: 0o755 });
  const path = join(dataDir, FILE);
  const text = (await readIfThere(path)) ?? (await makeKey(path));
  const key = Buffer.from(text.trim(), "base64");
  if (key.length === KEY_BYTES) return key;
  throw new StartupError(
    `${path} holds no key of ${KEY_BYTES} bytes in base64: put the original back, or set DROVER_SECRET_KEY`,
  );
}

async function readIfThere(path: string): Promise<string | null> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return null;
    throw error;
  }
}

/** Written whole and then linked into place: of two processes that start at once, one key wins and both use it. */
async function makeKey(path: string): Promise<string> {
  const draft = `${path}.${process.pid}.${randomBytes(4).toString("hex")}`;
  await writeFile(draft, `${randomBytes(KEY_BYTES).toString("base64")}\n`, { mode: 0o600, flag: "wx" });
  try {
    await link(draft, path);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
  } finally {
    await rm(draft, { force: true });
  }
  return await readFile(path, "utf8");
}
