// Quickstart itself, once it runs on the project's own Node.
import { mkdirSync } from "node:fs";
import { logLine } from "../progress.mjs";
import { connect } from "./api.mjs";
import { prepareHosts } from "./hosts.mjs";
import { startService } from "./service-process.mjs";
import { showUsage } from "./usage.mjs";
import { removeVm, runVm } from "./vm.mjs";

const SIGNALS = /** @type {const} */ (["SIGINT", "SIGTERM", "SIGHUP"]);

/**
 * Sets everything up, shows a VM at work, and serves until a signal comes (or deletes the VM and ends). Whatever
 * happens, what it started is stopped again.
 * @param {import("./options.mjs").QuickstartOptions} options
 */
export async function quickstart(options) {
  const interrupted = new AbortController();
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      interrupted.abort();
    });
  }
  try {
    await onHosts(options, interrupted.signal);
  } catch (error) {
    if (!interrupted.signal.aborted) throw error;
  }
}

/**
 * @param {import("./options.mjs").QuickstartOptions} options
 * @param {AbortSignal} signal
 */
async function onHosts(options, signal) {
  // Before libvirt is started with sudo, which would make it root's.
  mkdirSync(options.dataDir, { recursive: true, mode: 0o755 });
  const ground = await prepareHosts(options, logLine);
  try {
    const service = await startService(options, logLine);
    try {
      const client = connect(service, signal);
      await runVm(client, ground, signal, logLine);
      if (options.exit) await removeVm(client, signal, logLine);
      else {
        showUsage(service, ground);
        await service.ended(signal);
      }
    } finally {
      await service.stop();
    }
  } finally {
    await ground.stop();
  }
}
