// Builds one Xen host: dom0's disk, what boots it, its keys, and its saved state.
import { randomBytes } from "node:crypto";
import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { packCpio } from "../guest-image/cpio.mjs";
import { collectModules } from "../guest-image/kernel-modules.mjs";
import { run } from "../run-program.mjs";
import { CONSOLE_LOG_DIR, dom0Files, EDITED_SETTINGS, ENABLED_UNITS, MASKED_UNITS } from "./dom0-files.mjs";
import { DOM0_BOOT_MODULES, dom0InitrdFiles } from "./dom0-initrd.mjs";
import { HOST_KEY_ALIAS } from "./dom0-ssh.mjs";
import { XEN_FLAVOURS } from "./flavours.mjs";
import { makeRootFileSystem } from "./root-file-system.mjs";
import { extractVmlinux } from "./vmlinux.mjs";

const DISK_GIB = 10;

/**
 * Needs root.
 * @param {object} options
 * @param {import("./flavours.mjs").XenVersion} options.version
 * @param {import("../xen-host.mjs").XenHostFiles} options.files what is made
 * @param {string} options.workDir for scratch files
 */
export async function buildXenHostFiles({ version, files, workDir }) {
  const root = join(workDir, "root");
  await makeRootFileSystem({ version, suite: XEN_FLAVOURS[version].suite, workDir, root });
  await configure(root, files);
  await takeBootFiles(root, version, files);
  for (const unused of ["var/cache/apt", "var/lib/apt/lists", "usr/sbin/policy-rc.d"]) {
    rmSync(join(root, unused), { recursive: true, force: true });
  }
  const raw = join(workDir, "disk.raw");
  writeFileSync(raw, "");
  truncateSync(raw, DISK_GIB * 2 ** 30);
  const options = ["-q", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1"];
  await run("/sbin/mke2fs", [...options, "-d", root, raw]);
  await run("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", raw, files.disk]);
}

/**
 * @param {string} root
 * @param {import("../xen-host.mjs").XenHostFiles} files
 */
async function configure(root, { privateKeyFile, knownHostsFile }) {
  const hostKeyFile = `${privateKeyFile}.host`;
  for (const file of [privateKeyFile, hostKeyFile]) {
    await run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "drover-xen", "-f", file]);
  }
  const hostKey = {
    private: readFileSync(hostKeyFile, "utf8"),
    public: readFileSync(`${hostKeyFile}.pub`, "utf8"),
  };
  writeFileSync(knownHostsFile, `${HOST_KEY_ALIAS} ${hostKey.public.split(" ").slice(0, 2).join(" ")}\n`);
  const authorizedKey = readFileSync(`${privateKeyFile}.pub`, "utf8");
  const sshDir = join(root, "etc/ssh");
  for (const name of readdirSync(sshDir)) if (name.startsWith("ssh_host_")) rmSync(join(sshDir, name));
  const machineId = randomBytes(16).toString("hex");
  for (const { path, content, mode } of dom0Files({ authorizedKey, hostKey, machineId })) {
    mkdirSync(dirname(join(root, path)), { recursive: true, mode: mode === undefined ? 0o755 : 0o700 });
    rmSync(join(root, path), { force: true }); // it may be a link
    writeFileSync(join(root, path), content, { mode: mode ?? 0o644 });
  }
  mkdirSync(join(root, CONSOLE_LOG_DIR), { recursive: true });
  for (const { path, line, becomes } of EDITED_SETTINGS) edit(join(root, path), line, becomes);
  await run("systemctl", ["--quiet", `--root=${root}`, "enable", ...ENABLED_UNITS]);
  await run("systemctl", ["--quiet", `--root=${root}`, "mask", ...MASKED_UNITS]);
}

/**
 * @param {string} file
 * @param {RegExp} line
 * @param {string} becomes
 */
function edit(file, line, becomes) {
  const text = readFileSync(file, "utf8");
  writeFileSync(file, line.test(text) ? text.replace(line, becomes) : `${text}${becomes}\n`);
}

/**
 * @param {string} root
 * @param {string} version of Xen
 * @param {import("../xen-host.mjs").XenHostFiles} files
 */
async function takeBootFiles(root, version, files) {
  const boot = join(root, "boot");
  const vmlinuz = readdirSync(boot).find((name) => name.startsWith("vmlinuz-"));
  if (vmlinuz === undefined) throw new Error("Debian's kernel package holds no kernel");
  await extractVmlinux(join(boot, vmlinuz), files.kernel);
  const packed = `${files.xen}.gz`;
  copyFileSync(join(boot, `xen-${version}-amd64.gz`), packed);
  await run("gzip", ["--decompress", "--force", packed]);

  const modulesDir = join(root, "lib/modules", vmlinuz.replace("vmlinuz-", ""));
  const modules = await collectModules(modulesDir, DOM0_BOOT_MODULES);
  const busybox = readFileSync(join(root, "usr/bin/busybox"));
  writeFileSync(files.initrd, gzipSync(packCpio(dom0InitrdFiles({ busybox, modules })), { level: 1 }));
  for (const name of readdirSync(boot)) rmSync(join(boot, name), { recursive: true });
}
