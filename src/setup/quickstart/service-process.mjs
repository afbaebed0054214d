// The service that quickstart runs beside itself: started, waited for, stopped.
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { createWriteStream, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { withProgress } from "../progress.mjs";
import { PROJECT_DIR, pinnedNode, projectEnvironment, SERVICE_NODE_FLAGS } from "../project.mjs";

/**
 * @typedef {object} ServiceProcess
 * @property {string} url
 * @property {string} token
 * @property {string} logFile
 * @property {(signal: AbortSignal) => Promise<void>} ended resolves at the signal; rejects when the service ends by itself
 * @property {() => Promise<void>} stop
 */

const READY_SECONDS = 120;

/**
 * @param {import("./options.mjs").QuickstartOptions} options
 * @param {import("../progress.mjs").Log} log
 * @returns {Promise<ServiceProcess>}
 */
export async function startService({ dataDir, listen }, log) {
  const token = quickstartToken(dataDir);
  const logFile = join(dataDir, "quickstart.log");
  const env = {
    ...projectEnvironment(),
    DROVER_DATA_DIR: dataDir,
    DROVER_LISTEN: listen,
    DROVER_ADMIN_TOKEN: token,
  };
  // A session of its own: ctrl-C is for us, and we stop it in order.
  const child = spawn(pinnedNode(), [...SERVICE_NODE_FLAGS, join(PROJECT_DIR, "src/main.ts")], {
    env,
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const file = createWriteStream(logFile, { flags: "a", mode: 0o600 });
  let lastLines = "";
  child.stderr.setEncoding("utf8").on("data", (/** @type {string} */ text) => {
    lastLines = `${lastLines}${text}`.slice(-4000);
  });
  child.stderr.pipe(file);
  child.stdout.resume();
  /** @type {Promise<string>} */
  const ended = new Promise((resolve) => {
    child.on("error", (error) => {
      resolve(error.message);
    });
    child.on("exit", (status, signal) => {
      resolve(`it ended with ${signal ?? `status ${status}`}: ${lastLines.trim().split("\n").at(-1) ?? ""}`);
    });
  });
  const fail = ended.then((why) => {
    throw new Error(`the service did not stay up; ${why} (its log: ${logFile})`);
  });
  fail.catch(() => undefined);
  const url = `http://${listen.replace(/^0\.0\.0\.0:/, "127.0.0.1:").replace(/^\[::\]:/, "[::1]:")}`;
  const stop = async () => {
    child.kill("SIGTERM");
    await withProgress(log, "stopping the service", () => ended);
  };
  try {
    await withProgress(log, "starting the service", () => Promise.race([untilReady(url), fail]));
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    url,
    token,
    logFile,
    stop,
    ended: (signal) =>
      Promise.race([
        fail,
        /** @type {Promise<void>} */ (
          new Promise((resolve) => {
            if (signal.aborted) resolve();
            signal.addEventListener("abort", () => {
              resolve();
            });
          })
        ),
      ]),
  };
}

/** @param {string} url */
async function untilReady(url) {
  const deadline = performance.now() + READY_SECONDS * 1000;
  for (;;) {
    const answer = await fetch(`${url}/readyz`).catch(() => undefined); // not listening yet
    if (answer?.ok === true) return;
    if (performance.now() > deadline)
      throw new Error(`the service was not ready within ${READY_SECONDS} seconds`);
    await sleep(100);
  }
}

/**
 * The token of every run of quickstart on this data directory; readable by its owner only.
 * @param {string} dataDir
 */
function quickstartToken(dataDir) {
  const path = join(dataDir, "quickstart.token");
  if (existsSync(path)) return readFileSync(path, "utf8").trim();
  const token = `drover_${randomBytes(32).toString("base64url")}`;
  writeFileSync(path, `${token}\n`, { mode: 0o600 });
  return token;
}
