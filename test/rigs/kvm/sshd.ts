import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { type Namespace, runInside } from "../../../src/setup/private-libvirt/namespace.mjs";
import { makeSecretDir } from "./rig-dirs.ts";

/** What OpenSSH needs to log in as root: the texts of a private key and of a known_hosts file. */
export interface SshCredentials {
  readonly privateKey: string;
  readonly knownHosts: string;
}

/** Starts an sshd inside a host, on port 22 of its address; it takes one key and no password. */
export async function startSshd(namespace: Namespace, dir: string, address: string): Promise<SshCredentials> {
  const keys = makeSecretDir(dir, "ssh");
  const path = (file: string): string => join(keys, file);
  await Promise.all(
    ["host", "client"].map((name) =>
      execa("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path(name)]),
    ),
  );
  const hostKey = readFileSync(path("host.pub"), "utf8").split(" ").slice(0, 2).join(" ");
  const knownHosts = `${address} ${hostKey}\n`;
  writeFileSync(path("known_hosts"), knownHosts);
  writeFileSync(path("sshd_config"), sshdConfig(address, path("host"), path("client.pub"), path("sshd.pid")));
  await unlockRoot(namespace, path("shadow"));
  await runInside(namespace, "/usr/sbin/sshd", ["-f", path("sshd_config"), "-E", join(dir, "log/sshd.log")]);
  return { privateKey: readFileSync(path("client"), "utf8"), knownHosts };
}

function sshdConfig(address: string, hostKey: string, authorizedKeys: string, pidFile: string): string {
  return [
    `ListenAddress ${address}`,
    `HostKey ${hostKey}`,
    `AuthorizedKeysFile ${authorizedKeys}`,
    `PidFile ${pidFile}`,
    "StrictModes no",
    "PasswordAuthentication no",
    "UsePAM no",
    "PermitRootLogin yes",
    // Tests open many connections at once; the default refuses some of them at random.
    "MaxStartups 200",
    "MaxSessions 200",
    "",
  ].join("\n");
}

/** Without PAM, sshd refuses an account whose password is locked ("!"), as root's is on Ubuntu. Seen inside only. */
async function unlockRoot(namespace: Namespace, shadow: string): Promise<void> {
  writeFileSync(shadow, readFileSync("/etc/shadow", "utf8").replace(/^root:[^:]*:/m, "root:*:"), {
    mode: 0o600,
  });
  await runInside(namespace, "mount", ["--bind", shadow, "/etc/shadow"]);
}
