import { access, constants } from "node:fs/promises";
import path from "node:path";
import { DroverError } from "../../lib/errors.ts";
import { runConfined } from "./run-confined.ts";

/** The programs that build images, and what to say where one is missing. */
export interface BuildTools {
  /** Where programs are looked for, as in PATH. */
  readonly path: string;
  /** What Debian's archives are signed with. */
  readonly keyring: string;
}

export const SYSTEM_TOOLS: BuildTools = {
  path: "/usr/bin:/bin:/usr/sbin:/sbin",
  keyring: "/usr/share/keyrings/debian-archive-keyring.gpg",
};

/** Each program with the Debian package that has it. */
const PROGRAMS: readonly (readonly [program: string, debianPackage: string])[] = [
  ["mmdebstrap", "mmdebstrap"],
  ["mke2fs", "e2fsprogs"],
  ["qemu-img", "qemu-utils"],
  ["unshare", "util-linux"],
  ["setpriv", "util-linux"],
];

/** Without root, unshare asks this one for the user ids that a system's files belong to. */
const FOR_UNPRIVILEGED = ["newuidmap", "uidmap"] as const;

/** Throws DroverError `capability_unsupported`, with what to install, where images cannot be built. */
export async function requireBuildTools(tools: BuildTools, unprivileged = isUnprivileged()): Promise<void> {
  if (process.arch !== "x64")
    throw unsupported("it is no amd64 machine, and images are built for its own kind");
  const wanted = unprivileged ? [...PROGRAMS, FOR_UNPRIVILEGED] : PROGRAMS;
  const missing: string[] = [];
  for (const [program, debianPackage] of wanted)
    if (!(await isOnPath(tools.path, program))) missing.push(debianPackage);
  if (!(await isThere(tools.keyring, constants.R_OK))) missing.push("debian-archive-keyring");
  if (missing.length > 0) {
    const packages = [...new Set(missing)].join(" ");
    throw unsupported(`programs are missing. On Debian or Ubuntu: apt install ${packages}`);
  }
  await requireConfinement(tools, unprivileged);
}

/** A container without the right to make namespaces, or a user without subordinate ids, shows only here. */
async function requireConfinement(tools: BuildTools, unprivileged: boolean): Promise<void> {
  const signal = AbortSignal.timeout(10_000);
  const tried = await runConfined({ tools, program: "true", args: [], cwd: "/", signal, env: {} });
  if (tried.exitCode === 0) return;
  const hint = unprivileged
    ? "give its user subordinate ids (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER) or run it as root"
    : "its container may not make namespaces (CAP_SYS_ADMIN)";
  throw unsupported(`a build cannot be confined (${tried.tail.at(-1) ?? "no reason given"}): ${hint}`);
}

async function isOnPath(searched: string, program: string): Promise<boolean> {
  for (const directory of searched.split(":"))
    if (await isThere(path.join(directory, program), constants.X_OK)) return true;
  return false;
}

async function isThere(file: string, mode: number): Promise<boolean> {
  return await access(file, mode).then(
    () => true,
    () => false,
  );
}

function isUnprivileged(): boolean {
  return process.getuid?.() !== 0;
}

function unsupported(why: string): DroverError {
  return new DroverError("capability_unsupported", `Images cannot be built on this control plane: ${why}.`);
}
