// Shows that something goes on, whenever it takes longer than a second.

const QUIET_MS = 1000;
const REMINDER_MS = 15_000;

/** @typedef {(line: string) => void} Log */

/**
 * Writes a line for people to read. Standard error: standard output may be somebody's data.
 * @type {Log}
 */
export const logLine = (line) => {
  process.stderr.write(`drover: ${line}\n`);
};

/**
 * Runs something; says what it is when that takes over a second, that it still goes on, and how long it took.
 * @template T
 * @param {Log} log
 * @param {string} what "installing npm packages"
 * @param {() => Promise<T>} action
 * @returns {Promise<T>}
 */
export async function withProgress(log, what, action) {
  const start = performance.now();
  const seconds = () => `${Math.round((performance.now() - start) / 1000)} s`;
  const remind = setInterval(() => {
    log(`still ${what}, ${seconds()}`);
  }, REMINDER_MS);
  const first = setTimeout(() => {
    log(`${what} …`);
  }, QUIET_MS);
  try {
    const result = await action();
    if (performance.now() - start > QUIET_MS) log(`done ${what}, ${seconds()}`);
    return result;
  } finally {
    clearTimeout(first);
    clearInterval(remind);
  }
}
