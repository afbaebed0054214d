// A lock that ends with the process that holds it, however that ends.
import { spawn } from "node:child_process";
import { once } from "node:events";

/**
 * Runs something while no other process does that under the same lock; waits as long as another one holds it.
 * @template T
 * @param {string} path of a file that is made for it and stays
 * @param {() => Promise<T>} action
 * @returns {Promise<T>}
 */
export async function withFileLock(path, action) {
  // The shell under flock holds the lock until its standard input ends: when we close it, or when we are gone.
  const holder = spawn("flock", ["--exclusive", path, "sh", "-c", "echo held; cat"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = once(holder, "exit");
  try {
    const outcome = await Promise.race([once(holder.stdout, "data"), ended]);
    if (String(outcome[0]).trim() !== "held") throw new Error(`cannot lock ${path}`);
    return await action();
  } finally {
    holder.stdin.end();
    await ended;
  }
}
