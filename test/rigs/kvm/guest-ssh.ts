import { readFileSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import type { KvmHost } from "./kvm-host.ts";
import { makeSecretDir } from "./rig-dirs.ts";

/** A key of its own, and logins by it from a host into its guests. */
export interface GuestSsh {
  readonly publicKey: string;
  /** Runs a command in the shell of a guest's user, and returns what it wrote. Rejects where that fails. */
  run(user: string, address: string, command: string): Promise<string>;
}

/** A guest without acceleration takes its time for a login. */
const CONNECT_TIMEOUT_SECONDS = 60;

export async function makeGuestSsh(host: Pick<KvmHost, "dir" | "exec">): Promise<GuestSsh> {
  const key = join(makeSecretDir(host.dir, "guest-ssh"), "key");
  await execa("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "guest", "-f", key]);
  const settings = {
    BatchMode: "yes",
    ConnectTimeout: String(CONNECT_TIMEOUT_SECONDS),
    IdentitiesOnly: "yes",
    LogLevel: "ERROR",
    // A guest makes its host keys when it first boots: nobody knows them before.
    StrictHostKeyChecking: "no",
    UserKnownHostsFile: "/dev/null",
  };
  const options = Object.entries(settings).map(([name, value]) => `-o${name}=${value}`);
  return {
    publicKey: readFileSync(`${key}.pub`, "utf8").trim(),
    run: (user, address, command) =>
      host.exec("ssh", [...options, "-F/dev/null", `-i${key}`, `${user}@${address}`, command]),
  };
}
