// Quickstart's VM: its host, its images, its creation step by step, and its first words on the serial console.
import { setTimeout as sleep } from "node:timers/promises";
import { GUEST_KERNEL_ARGS } from "../guest-image.mjs";
import { withProgress } from "../progress.mjs";

export const VM = "hello";
const IMAGES = /** @type {const} */ ([
  ["tiny", "disk", "disk"],
  ["tiny-kernel", "kernel", "kernel"],
  ["tiny-initrd", "initrd", "initrd"],
]);
const BOOT_SECONDS = 180;
const LAST_LINES = 12;

/**
 * @typedef {import("./api.mjs").QuickstartApi} Api
 * @typedef {import("./hosts.mjs").Ground} Ground
 * @typedef {import("../progress.mjs").Log} Log
 */

/**
 * @param {Api} api
 * @param {Ground} ground
 * @param {Log} log
 * @returns {Promise<{ name: string }>}
 */
export async function runVm(api, ground, log) {
  for (const host of ground.hosts) await registerHost(api, host, log);
  if (ground.guest !== null) await uploadImages(api, ground.guest, log);
  const present = await api.send("GET", `/v1/vms/${VM}`);
  if (present === null) await createVm(api, ground, log);
  else await startVm(api, present, log);
  await showConsole(api, log);
  return { name: VM };
}

/**
 * @param {Api} api
 * @param {Ground["hosts"][number]} host
 * @param {Log} log
 */
async function registerHost(api, { name, uri, accelerator }, log) {
  const present = await api.send("GET", `/v1/hosts/${name}`);
  if (present !== null && present.spec.uri !== uri) {
    throw new Error(
      `host "${name}" is registered with the URI ${present.spec.uri}, not ${uri}: delete its VMs and the host, or set DROVER_DATA_DIR to another directory`,
    );
  }
  if (present === null) {
    log(`registering ${uri} as host "${name}"`);
    const { operation } = await api.send("POST", "/v1/hosts", { name, uri, accelerator });
    await follow(api, operation, log);
    return;
  }
  log(`host "${name}" is registered already`);
  if (present.spec.accelerator !== accelerator) await api.send("PATCH", `/v1/hosts/${name}`, { accelerator });
  const { operation } = await api.send("POST", `/v1/hosts/${name}/refresh`, {});
  await follow(api, operation, log);
}

/**
 * @param {Api} api
 * @param {import("../guest-image.mjs").GuestImage} guest
 * @param {Log} log
 */
async function uploadImages(api, guest, log) {
  for (const [name, kind, part] of IMAGES) {
    if ((await api.send("GET", `/v1/images/${name}`)) !== null) continue;
    await withProgress(log, `uploading image "${name}"`, () =>
      api.upload(`/v1/images/${name}/content?kind=${kind}`, guest[part]),
    );
    log(`uploaded image "${name}"`);
  }
}

/**
 * @param {Api} api
 * @param {Ground} ground
 * @param {Log} log
 */
async function createVm(api, ground, log) {
  const host = ground.hosts[0]?.name ?? "";
  /** @type {{ items: { name: string, active: boolean }[] }} */
  const networks = await api.send("GET", `/v1/hosts/${host}/networks`);
  const active = networks.items.filter((network) => network.active).map(({ name }) => name);
  const network = active.includes("default") ? "default" : active[0];
  const nics = network === undefined ? [] : [{ name: "eth0", network }];
  // Its disk boots as well; without acceleration a kernel that is given directly is up ten times sooner.
  const boot = { kernel: "tiny-kernel", initrd: "tiny-initrd", commandLine: GUEST_KERNEL_ARGS };
  const real = { boot, disks: [{ name: "root", image: "tiny" }] };
  const content = ground.guest === null ? { disks: [{ name: "root", sizeGib: 1 }] } : real;
  const spec = { cpu: { count: 1 }, memoryMib: 256, nics, ...content };
  log(`creating VM "${VM}"`);
  const { operation } = await api.send("POST", "/v1/vms", { name: VM, labels: { made: "quickstart" }, spec });
  await follow(api, operation, log);
}

/**
 * @param {Api} api
 * @param {{ status: { power: string, phase: string } }} vm
 * @param {Log} log
 */
async function startVm(api, vm, log) {
  if (vm.status.phase === "failed") {
    throw new Error(`VM "${VM}" of an earlier run failed: look at GET /v1/vms/${VM}, then delete it`);
  }
  log(`VM "${VM}" exists already and is ${vm.status.power}; starting it`);
  const { operation } = await api.send("POST", `/v1/vms/${VM}/start`, {});
  await follow(api, operation, log);
}

/**
 * Shows an operation's steps as they happen.
 * @param {Api} api
 * @param {{ id: string, kind: string }} operation
 * @param {Log} log
 */
async function follow(api, operation, log) {
  /** @type {Map<string, string>} */
  const shown = new Map();
  for (;;) {
    const now = await api.send("GET", `/v1/operations/${operation.id}`);
    for (const { name, state } of now.steps) {
      if (shown.get(name) === state) continue;
      shown.set(name, state);
      log(`  ${operation.kind}: ${name} ${state}`);
    }
    if (now.endedAt !== null) {
      if (now.state === "succeeded") return;
      throw new Error(`${operation.kind} ${now.state}: ${now.error?.message ?? "no reason was given"}`);
    }
    await sleep(150, undefined, { signal: api.signal });
  }
}

/**
 * Waits until the guest says that it is up, and shows what it wrote: the proof of life.
 * @param {Api} api
 * @param {Log} log
 */
async function showConsole(api, log) {
  const deadline = performance.now() + BOOT_SECONDS * 1000;
  const text = await withProgress(log, "waiting for the guest's first words", async () => {
    for (;;) {
      const written = await api.text(`/v1/vms/${VM}/console/log`);
      if (written.includes("DROVER-GUEST-UP") || performance.now() > deadline) return written;
      await sleep(500, undefined, { signal: api.signal });
    }
  });
  if (!text.includes("DROVER-GUEST-UP"))
    throw new Error(`the guest wrote nothing within ${BOOT_SECONDS} seconds`);
  log("the guest's serial console says:");
  // A guest may write anything: what would steer the terminal is left out.
  const lines = text
    .replace(/\r/g, "")
    .split("\n")
    .map((line) => line.replace(/[^\x20-\x7e]/g, ""));
  for (const line of lines.filter((line) => line !== "").slice(-LAST_LINES)) log(`  | ${line}`);
}

/**
 * @param {Api} api
 * @param {{ name: string }} vm
 * @param {Log} log
 */
export async function deleteVm(api, { name }, log) {
  log(`deleting VM "${name}"`);
  const { operation } = await api.send("DELETE", `/v1/vms/${name}`);
  await follow(api, operation, log);
}
