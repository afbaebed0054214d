// Quickstart's VM: its host, its images, its creation step by step, and its first words on the serial console.
import { openAsBlob } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import {
  createVm,
  deleteVm,
  getHost,
  getImage,
  getOperation,
  getVm,
  getVmConsoleLog,
  listHostNetworks,
  refreshHost,
  registerHost,
  startVm,
  updateHost,
  uploadImage,
} from "../../../openapi/sdk/index.ts";
import { GUEST_KERNEL_ARGS } from "../guest-image.mjs";
import { withProgress } from "../progress.mjs";
import { answerOf, findAnswer } from "./api.mjs";

export const VM = "hello";
const IMAGES = /** @type {const} */ ([
  ["tiny", "disk", "disk"],
  ["tiny-kernel", "kernel", "kernel"],
  ["tiny-initrd", "initrd", "initrd"],
]);
const BOOT_SECONDS = 180;
const LAST_LINES = 12;

/**
 * @typedef {import("./api.mjs").Client} Client
 * @typedef {import("./hosts.mjs").Ground} Ground
 * @typedef {import("../progress.mjs").Log} Log
 */

/**
 * Brings the VM up: its hosts are registered, its images uploaded, it is created or started again.
 * @param {Client} client
 * @param {Ground} ground
 * @param {AbortSignal} signal
 * @param {Log} log
 */
export async function runVm(client, ground, signal, log) {
  for (const host of ground.hosts) await ensureHost(client, host, signal, log);
  if (ground.guest !== null) await ensureImages(client, ground.guest, log);
  const vm = await findAnswer(getVm({ client, path: { vm: VM } }));
  if (vm?.status.phase === "failed") {
    log(`VM "${VM}" of an earlier run failed; making it anew`);
    await removeVm(client, signal, log);
  }
  if (vm === null || vm.status.phase === "failed") await makeVm(client, ground, signal, log);
  else {
    log(`VM "${VM}" is there already and is ${vm.status.power}; starting it`);
    const { operation } = await answerOf(startVm({ client, path: { vm: VM }, body: {} }));
    await follow(client, operation, signal, log);
  }
  await showConsole(client, signal, log);
}

/**
 * @param {Client} client
 * @param {Ground["hosts"][number]} host
 * @param {AbortSignal} signal
 * @param {Log} log
 */
async function ensureHost(client, { name, uri, accelerator }, signal, log) {
  const present = await findAnswer(getHost({ client, path: { host: name } }));
  if (present === null) {
    log(`registering ${uri} as host "${name}"`);
    const { operation } = await answerOf(registerHost({ client, body: { name, uri, accelerator } }));
    await follow(client, operation, signal, log);
    return;
  }
  if (present.spec.uri !== uri) {
    throw new Error(
      `host "${name}" is registered with the URI ${present.spec.uri}, not ${uri}: delete its VMs and the host, or set DROVER_DATA_DIR to another directory`,
    );
  }
  log(`host "${name}" is registered already`);
  if (present.spec.accelerator !== accelerator) {
    await answerOf(updateHost({ client, path: { host: name }, body: { accelerator } }));
  }
  const { operation } = await answerOf(refreshHost({ client, path: { host: name } }));
  await follow(client, operation, signal, log);
}

/**
 * @param {Client} client
 * @param {import("../guest-image.mjs").GuestImage} guest
 * @param {Log} log
 */
async function ensureImages(client, guest, log) {
  for (const [image, kind, part] of IMAGES) {
    if ((await findAnswer(getImage({ client, path: { image } }))) !== null) continue;
    const body = await openAsBlob(guest[part]);
    await withProgress(log, `uploading image "${image}"`, () =>
      answerOf(uploadImage({ client, path: { image }, query: { kind }, body })),
    );
    log(`uploaded image "${image}"`);
  }
}

/**
 * @param {Client} client
 * @param {Ground} ground
 * @param {AbortSignal} signal
 * @param {Log} log
 */
async function makeVm(client, ground, signal, log) {
  const host = ground.hosts[0]?.name ?? "";
  const { items } = await answerOf(listHostNetworks({ client, path: { host } }));
  const active = items.filter((network) => network.active).map(({ name }) => name);
  const network = active.includes("default") ? "default" : active[0];
  const nics = network === undefined ? [] : [{ name: "eth0", network }];
  // Its disk boots as well; without acceleration a kernel that is given directly is up ten times sooner.
  const boot = { kernel: "tiny-kernel", initrd: "tiny-initrd", commandLine: GUEST_KERNEL_ARGS };
  const real = { boot, disks: [{ name: "root", image: "tiny" }] };
  const content = ground.guest === null ? { disks: [{ name: "root", sizeGib: 1 }] } : real;
  const spec = { cpu: { count: 1 }, memoryMib: 256, nics, ...content };
  log(`creating VM "${VM}"`);
  const body = { name: VM, labels: { made: "quickstart" }, spec };
  const { operation } = await answerOf(createVm({ client, body }));
  await follow(client, operation, signal, log);
}

/**
 * Shows an operation's steps as they happen, until it ends.
 * @param {Client} client
 * @param {{ id: string, kind: string }} started
 * @param {AbortSignal} signal
 * @param {Log} log
 */
async function follow(client, started, signal, log) {
  /** @type {Map<string, string>} */
  const shown = new Map();
  for (;;) {
    const operation = await answerOf(getOperation({ client, path: { operation: started.id } }));
    for (const { name, state } of operation.steps) {
      if (shown.get(name) === state) continue;
      shown.set(name, state);
      log(`  ${started.kind}: ${name} ${state}`);
    }
    if (operation.state === "succeeded") return;
    if (operation.endedAt !== null) {
      throw new Error(
        `${started.kind} ${operation.state}: ${operation.error?.message ?? "no reason was given"}`,
      );
    }
    await sleep(150, undefined, { signal });
  }
}

/**
 * Waits until the guest says that it is up, and shows what it wrote: the proof of life.
 * @param {Client} client
 * @param {AbortSignal} signal
 * @param {Log} log
 */
async function showConsole(client, signal, log) {
  const deadline = performance.now() + BOOT_SECONDS * 1000;
  const text = await withProgress(log, "waiting for the guest's first words", async () => {
    for (;;) {
      const written = await answerOf(getVmConsoleLog({ client, path: { vm: VM }, parseAs: "text" }));
      if (written.includes("DROVER-GUEST-UP") || performance.now() > deadline) return written;
      await sleep(500, undefined, { signal });
    }
  });
  if (!text.includes("DROVER-GUEST-UP"))
    throw new Error(`the guest wrote nothing within ${BOOT_SECONDS} seconds`);
  log("the guest's serial console says:");
  // A guest may write anything: what would steer the terminal is left out.
  const lines = text.split("\n").map((line) => line.replace(/[^ -~]/g, ""));
  for (const line of lines.filter((line) => line !== "").slice(-LAST_LINES)) log(`  | ${line}`);
}

/**
 * @param {Client} client
 * @param {AbortSignal} signal
 * @param {Log} log
 */
export async function removeVm(client, signal, log) {
  log(`deleting VM "${VM}"`);
  const { operation } = await answerOf(deleteVm({ client, path: { vm: VM } }));
  await follow(client, operation, signal, log);
}
