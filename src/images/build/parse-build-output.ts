import { DroverError } from "../../lib/errors.ts";

/** Reads what mmdebstrap, apt and dpkg print. */

/** How far the installation of packages has come. */
export interface PackageCount {
  readonly done: number;
  /** Grows when apt has decided on more. */
  readonly total: number;
}

const DECIDED = /^\d+ upgraded, (\d+) newly installed, /;
const SET_UP = /^Setting up \S+ \(/;

/** The count after this line: the same object where the line does not change it. */
export function countPackages(line: string, count: PackageCount): PackageCount {
  const { done, total } = count;
  const decided = DECIDED.exec(line)?.[1];
  if (decided !== undefined) return { done, total: total + Number(decided) };
  return SET_UP.test(line) && done < total ? { done: done + 1, total } : count;
}

interface Cause {
  readonly pattern: RegExp;
  readonly error: (found: RegExpExecArray) => DroverError;
}

const failed = (message: string) => new DroverError("image_build_failed", message);

/** The first that occurs in any line is the cause: what came later mostly follows from it. */
const CAUSES: readonly Cause[] = [
  {
    pattern: /No space left on device/,
    error: () =>
      new DroverError("storage_full", "The disk ran full while the image was built. Nothing of it was kept."),
  },
  {
    pattern: /Unable to locate package (\S+)|Package '?([^\s']+)'? has no installation candidate/,
    error: ([, unknown, virtual]) =>
      failed(`There is no package ${unknown ?? virtual ?? ""} in this suite. Correct the list of packages.`),
  },
  {
    pattern: /NO_PUBKEY|EXPKEYSIG|is not signed|signatures? (?:couldn't be verified|were invalid)/,
    error: () =>
      failed(
        "The archive is not signed with a key of Debian's that this control plane knows. Choose another mirror, or ask " +
          "the operator to bring debian-archive-keyring up to date.",
      ),
  },
  {
    pattern: /does not have a Release file|Release' is not|\b404 +Not Found/,
    error: () =>
      failed("The mirror does not have this suite, or not all of it. Correct the suite or the mirror."),
  },
  {
    pattern:
      /Temporary failure resolving|Could not resolve|Could not connect|Connection (?:failed|timed out|refused)|Unable to connect|\b50\d +[A-Z]/,
    error: () =>
      new DroverError("download_failed", "The mirror could not be reached; the build's log says more."),
  },
];

/** Why a build failed, from the last lines that its programs printed. */
export function explainFailure(program: string, lines: readonly string[]): DroverError {
  for (const { pattern, error } of CAUSES) {
    for (const line of lines) {
      const found = pattern.exec(line);
      if (found !== null) return error(found);
    }
  }
  const told = lines.find((line) => line.startsWith("E: ")) ?? lines.at(-1) ?? "it said nothing";
  return failed(`${program} failed: ${told.slice(0, 500)} The image's log says more.`);
}
