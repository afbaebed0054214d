// The emulated machine of a Xen host: QEMU without acceleration.
import { spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { identifyProcess, isAlive, signalProcess, waitUntil } from "../processes.mjs";
import { DOM0_ADDRESS, FIRST_GUEST_ADDRESS } from "./dom0-files.mjs";
import { asRecord, connectQmp } from "./qmp.mjs";

/** Memory of a machine unless a test asks for another; what dom0 does not take is for guests. */
export const MACHINE_MEMORY_MIB = 4096;
const DOM0_MEMORY_MIB = 768;
const CPUS = 2;

// With SVM and nested paging, which QEMU emulates, PVH and HVM guests run as well as PV ones. The rest is chosen for
// what QEMU 7.2 gets wrong when it emulates a machine that runs Xen:
// - no SMAP: it is checked on an IRET in ring 3, which every PV kernel executes, and dom0 dies with a page fault;
// - no RDTSCP: its interception is reported as one of RDTSC, and PVH and HVM guests die;
// - no XSAVE, no AVX: vector registers got mixed up between domains, and ssh sessions broke.
const CPU = "Opteron_G3,-rdtscp,+svm,+npt,+rdrand";

// bootscrub=0: memory that nobody uses is never touched, so it costs nothing. spec-ctrl=no: detours against
// speculation cost an emulated CPU dearly. eager-fpu: vector registers are always switched (see above).
const XEN_ARGS = [
  `dom0_mem=${DOM0_MEMORY_MIB}M,max:${DOM0_MEMORY_MIB}M dom0_max_vcpus=${CPUS}`,
  "com1=115200,8n1 console=com1 loglvl=info guest_loglvl=all bootscrub=0 spec-ctrl=no,eager-fpu",
].join(" ");
const DOM0_ARGS = "root=/dev/vda console=hvc0 net.ifnames=0 quiet mitigations=off";

/**
 * @typedef {object} BootFiles
 * @property {string} xen path of the hypervisor, unpacked
 * @property {string} kernel path of dom0's kernel, unpacked
 * @property {string} initrd path
 */

/**
 * @typedef {object} MachineOptions
 * @property {string} name
 * @property {string} dir where its logs go
 * @property {BootFiles} boot
 * @property {string} disk path of the qcow2 file it writes to
 * @property {number} memoryMib
 * @property {{ file: string, shared: boolean }} [memory] the file its memory is: written back where it is shared, else
 *   only read
 * @property {boolean} [incoming] whether it waits for a saved state
 */

/**
 * @typedef {object} Machine
 * @property {import("./qmp.mjs").Qmp} qmp
 * @property {() => Promise<number>} sshPort port on 127.0.0.1 that is forwarded to dom0's sshd
 * @property {(this: void) => void} pause the whole machine stands still: it answers nothing, and closes nothing
 * @property {(this: void) => void} resume
 * @property {number} pid of QEMU
 * @property {() => boolean} isRunning
 * @property {() => Promise<void>} end cuts its power
 */

/**
 * Starts a machine. It ends with this process at the latest.
 * @param {MachineOptions} options
 * @returns {Machine}
 */
export function startMachine(options) {
  const log = openSync(join(options.dir, "qemu.log"), "a");
  // The kernel kills it when the thread that starts it ends.
  const child = spawn("setpriv", ["--pdeathsig", "KILL", "qemu-system-x86_64", ...machineArgs(options)], {
    stdio: ["pipe", "pipe", log],
  });
  closeSync(log);
  child.on("error", () => undefined); // then it has no pid, which is told below
  const identity = child.pid === undefined ? undefined : identifyProcess(child.pid);
  if (identity === undefined || child.stdout === null || child.stdin === null)
    throw new Error("QEMU cannot be started: is util-linux's setpriv there?");
  const qmp = connectQmp(child.stdout, child.stdin);
  return {
    qmp,
    sshPort: () => forwardedPort(qmp, options.dir),
    pause: () => {
      signalProcess(identity, "SIGSTOP");
    },
    resume: () => {
      signalProcess(identity, "SIGCONT");
    },
    pid: identity.pid,
    isRunning: () => isAlive(identity),
    end: async () => {
      signalProcess(identity, "SIGKILL");
      await waitUntil("QEMU ends", () => !isAlive(identity), { timeoutSeconds: 30 });
    },
  };
}

/**
 * @param {MachineOptions} options
 * @returns {string[]}
 */
function machineArgs({ name, dir, boot, disk, memoryMib, memory, incoming = false }) {
  const backend =
    memory === undefined
      ? `memory-backend-ram,id=ram,size=${memoryMib}M`
      : `memory-backend-file,id=ram,size=${memoryMib}M,mem-path=${commas(memory.file)},share=${memory.shared ? "on" : "off"}`;
  // Guests and dom0 reach nothing outside; port 0 lets the kernel choose one that is free.
  const network = [
    "user,id=net0,restrict=on,net=10.0.2.0/24",
    `dhcpstart=${FIRST_GUEST_ADDRESS}`,
    `hostfwd=tcp:127.0.0.1:0-${DOM0_ADDRESS}:22`,
  ].join(",");
  return [
    ...["-name", name, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...["-machine", "q35,usb=off,memory-backend=ram", "-object", backend, "-m", `${memoryMib}M`],
    ...["-accel", "tcg,thread=multi,tb-size=512", "-cpu", CPU, "-smp", String(CPUS)],
    // Xen is a multiboot kernel; its modules are given with their command lines, parted by commas.
    ...["-kernel", boot.xen, "-append", XEN_ARGS],
    ...["-initrd", `${commas(boot.kernel)} ${DOM0_ARGS},${commas(boot.initrd)}`],
    ...["-drive", `file=${commas(disk)},if=none,id=disk0,format=qcow2,cache=unsafe,discard=unmap`],
    ...["-device", "virtio-blk-pci,drive=disk0"],
    ...["-netdev", network, "-device", "virtio-net-pci,netdev=net0,mac=52:54:00:12:34:56,romfile="],
    ...["-device", "virtio-rng-pci", "-serial", `file:${join(dir, "console.log")}`, "-qmp", "stdio"],
    ...(incoming ? ["-incoming", "defer"] : []),
  ];
}

/**
 * @param {string} path
 * @returns {string} as QEMU's option values have it
 */
function commas(path) {
  return path.replaceAll(",", ",,");
}

/**
 * @param {import("./qmp.mjs").Qmp} qmp
 * @param {string} dir
 */
async function forwardedPort(qmp, dir) {
  try {
    const table = String(await qmp.execute("human-monitor-command", { "command-line": "info usernet" }));
    const port = /TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)/.exec(table)?.[1];
    if (port === undefined) throw new Error(`QEMU forwards no port:\n${table}`);
    return Number(port);
  } catch (error) {
    const log = readFileSync(join(dir, "qemu.log"), "utf8").trim();
    throw new Error(`the emulated machine does not run: ${log}`, { cause: error });
  }
}

/**
 * Resumes a saved state. The machine has been started with `incoming` and memory from the file saved with it.
 * @param {Machine} machine
 * @param {string} stateFile
 */
export async function resumeState({ qmp }, stateFile) {
  await leaveMemoryOut(qmp);
  await qmp.execute("migrate-incoming", { uri: `exec:cat ${quoted(stateFile)}` });
  await waitUntil(
    "the saved state is loaded",
    async () => {
      const { status } = asRecord(await qmp.execute("query-status"));
      return status !== "inmigrate";
    },
    { timeoutSeconds: 60 },
  );
  await qmp.execute("cont"); // saved while it stood still
}

/**
 * Saves everything but memory, which is in its file, and leaves the machine standing still.
 * @param {Machine} machine
 * @param {string} stateFile
 */
export async function saveState({ qmp }, stateFile) {
  await qmp.execute("stop");
  await leaveMemoryOut(qmp);
  await qmp.execute("migrate", { uri: `exec:cat > ${quoted(stateFile)}` });
  await waitUntil(
    "the state is saved",
    async () => {
      const { status, "error-desc": reason } = asRecord(await qmp.execute("query-migrate"));
      if (status === "failed") throw new Error(`QEMU cannot save its state: ${String(reason)}`);
      return status === "completed";
    },
    { timeoutSeconds: 120 },
  );
}

/** @param {import("./qmp.mjs").Qmp} qmp */
async function leaveMemoryOut(qmp) {
  const capabilities = [{ capability: "x-ignore-shared", state: true }];
  await qmp.execute("migrate-set-capabilities", { capabilities });
}

/** @param {string} path */
function quoted(path) {
  return `'${path.replaceAll("'", "'\\''")}'`;
}
