import { randomUUID } from "node:crypto";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { DroverError } from "../../lib/errors.ts";
import { list } from "../image-directory.ts";
import type { BuildTools } from "./build-tools.ts";
import { runConfined } from "./run-confined.ts";

/**
 * Where images are built: a directory for each build, named `<operation's id>.<something of its own>`. What a process
 * that was killed left in one is never used again; it is removed by the next attempt, the undo, or the sweep.
 */
export interface BuildDirectories {
  /** Makes an empty one, after removing what earlier attempts of the operation left. */
  make(operationId: string): Promise<string>;
  /** Removes those of an operation. */
  clear(operationId: string): Promise<void>;
  /** Ids of the operations that have one. */
  operationIds(): Promise<readonly string[]>;
}

/** @param directory is made with the first build. */
export function createBuildDirectories(directory: string, tools: BuildTools): BuildDirectories {
  const clear = async (operationId: string): Promise<void> => {
    for (const name of await list(directory))
      if (name.startsWith(`${operationId}.`)) await removeTree(path.join(directory, name), tools);
  };
  return {
    clear,
    async make(operationId) {
      await clear(operationId);
      const made = path.join(directory, `${operationId}.${randomUUID()}`);
      await mkdir(made, { recursive: true, mode: 0o700 });
      return made;
    },
    async operationIds() {
      const names = await list(directory);
      return [...new Set(names.map((name) => name.split(".")[0] ?? ""))].filter((id) => id !== "");
    },
  };
}

const REMOVE_ATTEMPTS = 5;
const REMOVE_PAUSE_MS = 500;
const REMOVE_LIMIT_MS = 300_000;

/**
 * Its files belong to users of the system that is built, so a program removes them that is root there. Repeated, for
 * programs that were just killed may still add to it. Nothing that is mounted below it is entered.
 */
async function removeTree(tree: string, tools: BuildTools): Promise<void> {
  let reason = "";
  for (let attempt = 1; attempt <= REMOVE_ATTEMPTS; attempt++) {
    const { exitCode, tail } = await runConfined({
      tools,
      program: "rm",
      args: ["-rf", "--one-file-system", "--", tree],
      cwd: "/",
      env: {},
      // Not that of the operation: an undo must come to its end.
      signal: AbortSignal.timeout(REMOVE_LIMIT_MS),
    });
    if (exitCode === 0) return;
    reason = tail.at(-1) ?? "";
    await sleep(REMOVE_PAUSE_MS);
  }
  throw new DroverError("unavailable", `A build's directory could not be removed: ${reason}`);
}
