// Boots a built host once and saves it as it stands then: resuming that takes seconds, booting a minute or two.

import { waitUntil } from "../processes.mjs";
import { run } from "../run-program.mjs";
import { runInDom0 } from "./dom0-ssh.mjs";
import { MACHINE_MEMORY_MIB, saveState, startMachine } from "./machine.mjs";

const BOOT_TAKES_AT_MOST_SECONDS = 900;

/**
 * @param {import("../xen-host.mjs").XenHostFiles} files of a host that is built so far
 * @param {string} workDir for logs
 */
export async function warmUp(files, workDir) {
  await run("qemu-img", ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "disk.qcow2", files.warmDisk]);
  const machine = startMachine({
    name: "drover-xen-warm-up",
    dir: workDir,
    boot: files,
    disk: files.warmDisk,
    memoryMib: MACHINE_MEMORY_MIB,
    memory: { file: files.warmMemory, shared: true },
  });
  try {
    const { privateKeyFile, knownHostsFile } = files;
    const access = { port: await machine.sshPort(), privateKeyFile, knownHostsFile };
    await waitForBoot(machine, access);
    await settle(access);
    await saveState(machine, files.warmState);
  } finally {
    await machine.end();
  }
  // Pages of zeros need no place on the disk.
  await run("fallocate", ["--dig-holes", files.warmMemory]);
}

/**
 * Waits until a machine that was switched on has started all it starts.
 * @param {import("./machine.mjs").Machine} machine
 * @param {import("./dom0-ssh.mjs").Dom0Access} access
 */
export async function waitForBoot(machine, access) {
  const answers = async () => {
    if (!machine.isRunning()) throw new Error("the emulated machine has ended");
    return (await runInDom0(access, ["xl", "info"], { connectSeconds: 5 })).status === 0;
  };
  await waitUntil("dom0 answers", answers, {
    timeoutSeconds: BOOT_TAKES_AT_MOST_SECONDS,
    intervalMs: 1000,
  });
  // Status 1 where a unit has failed: what matters is looked at where it does.
  await runInDom0(access, ["systemctl", "is-system-running", "--wait"]);
}

/**
 * Leaves little to save: what xl and sshd need is read again.
 * @param {import("./dom0-ssh.mjs").Dom0Access} access
 */
async function settle(access) {
  const script = `
    pgrep -f xenconsoled.*--log=guest >/dev/null || { echo "xenconsoled keeps no logs"; exit 1; }
    sync; echo 3 >/proc/sys/vm/drop_caches
    xl info >/dev/null; xl list >/dev/null; qemu-img --version >/dev/null`;
  for (const argv of [["sh", "-c", script], ["true"]]) {
    const { status, stdout, stderr } = await runInDom0(access, argv);
    if (status !== 0) throw new Error(`dom0 does not settle: ${stdout}${stderr}`);
  }
}
