// Debian packages this machine needs: which are missing, and installing them without a question.
import { existsSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { rootAccess, runAsRoot } from "./privileges.mjs";
import { ProgramError, runToEnd } from "./run-program.mjs";

/** What a KVM host needs: QEMU, libvirt and the programs libvirt calls for a NAT network. */
export const HYPERVISOR_PACKAGES = Object.freeze([
  "qemu-system-x86",
  "qemu-utils",
  "ovmf",
  "libvirt-daemon-system",
  "libvirt-clients",
  "dnsmasq-base",
  "iptables",
  "iproute2",
  "util-linux",
]);

/** What building the small guest takes. */
export const GUEST_IMAGE_PACKAGES = Object.freeze([
  "qemu-utils",
  "e2fsprogs",
  "grub-common",
  "grub-pc-bin",
  "xz-utils",
  "zstd",
]);

/** What building and running the tests' Xen hosts takes. */
export const XEN_HOST_PACKAGES = Object.freeze([
  "mmdebstrap",
  "debian-archive-keyring",
  "gpgv",
  "lz4",
  "e2fsprogs",
  "openssh-client",
  "qemu-system-x86",
  "qemu-utils",
  "util-linux",
  "xz-utils",
  "zstd",
]);

/** What building Debian images takes; the control plane says so where they are missing. */
export const BUILD_PACKAGES = Object.freeze([
  "mmdebstrap",
  "debian-archive-keyring",
  "e2fsprogs",
  "qemu-utils",
  "util-linux",
]);

/** What the tests' emulated hosts need besides, curl for the README's walk, and isoinfo to read what we write. */
export const TEST_PACKAGES = Object.freeze([
  "curl",
  "genisoimage",
  "netcat-openbsd",
  "openssh-client",
  "openssh-server",
  "openssl",
]);

/**
 * The browser in which the tests open consoles. Ubuntu has it as a snap only: there, one that is installed is used.
 * @param {string} release the text of /etc/os-release
 * @returns {readonly string[]}
 */
export function browserPackages(release) {
  return /^ID="?debian"?$/m.test(release) ? ["chromium-headless-shell"] : [];
}

const POLICY = "/usr/sbin/policy-rc.d";
const POLICY_MARK = "# Made by Drover while it installs packages; may be removed.";
const LOCK_TIMEOUT_SECONDS = 600;

/**
 * @param {string} text of /etc/os-release
 * @returns {boolean} whether it is Debian, Ubuntu or made from one of them
 */
export function isDebianFamily(text) {
  const values = /^(?:ID|ID_LIKE)=(.*)$/gm;
  const ids = [...text.matchAll(values)].flatMap(([, value = ""]) => value.replace(/["']/g, "").split(/\s+/));
  return ids.includes("debian") || ids.includes("ubuntu");
}

/**
 * @returns {Promise<{ possible: true } | { possible: false, reason: string }>} whether packages can be installed here
 */
export async function canInstallPackages() {
  const release = existsSync("/etc/os-release") ? readFileSync("/etc/os-release", "utf8") : "";
  if (!isDebianFamily(release)) return { possible: false, reason: "this is neither Debian nor Ubuntu" };
  if ((await rootAccess()) === "none") {
    return { possible: false, reason: "installing packages takes root or sudo without a password" };
  }
  return { possible: true };
}

/**
 * @param {readonly string[]} packages
 * @returns {Promise<string[]>} those that are not installed, each once
 */
export async function missingPackages(packages) {
  const wanted = [...new Set(packages)];
  const format = "${Package}\t${db:Status-Status}\n";
  // Status 1 when one of them is unknown: the others are printed all the same.
  const { stdout } = await runToEnd("dpkg-query", ["--show", `--showformat=${format}`, ...wanted]);
  const lines = stdout.split("\n").map((line) => line.split("\t"));
  const installed = new Set(lines.filter(([, status]) => status === "installed").map(([name]) => name));
  return wanted.filter((name) => !installed.has(name));
}

/**
 * Installs what is missing. Quick when nothing is.
 * @param {readonly string[]} packages
 * @param {object} options
 * @param {(line: string) => void} options.announce told what will be installed, before it is
 * @param {boolean} [options.startServices] false: none of their services is started, nor enabled for the next boot
 * @returns {Promise<string[]>} what was installed
 * @throws {Error} when it cannot be installed here
 */
export async function ensurePackages(packages, { announce, startServices = true }) {
  const missing = await missingPackages(packages);
  if (missing.length === 0) return [];
  const answer = await canInstallPackages();
  if (!answer.possible) {
    throw new Error(`these Debian packages are missing and ${answer.reason}: ${missing.join(" ")}`);
  }
  announce(`installing with apt: ${missing.join(" ")}`);
  await refreshPackageLists();
  const quiet = !hasServiceManager() || !startServices;
  const install = () => apt(["install", "--yes", "--no-install-recommends", ...missing]);
  await (quiet ? withoutServices(install) : install());
  if (!startServices && hasServiceManager() && missing.includes("openssh-server")) {
    await runAsRoot("systemctl", ["disable", "ssh.service", "ssh.socket"]);
  }
  return missing;
}

/** Fetches the lists of available packages anew. */
export async function refreshPackageLists() {
  const deadline = performance.now() + LOCK_TIMEOUT_SECONDS * 1000;
  for (;;) {
    try {
      await apt(["update"]);
      return;
    } catch (error) {
      // DPkg::Lock::Timeout does not cover the lock of the lists.
      const locked = error instanceof ProgramError && error.stderr.includes("Could not get lock");
      if (!locked || performance.now() > deadline) throw error;
      await sleep(2000);
    }
  }
}

/** @param {readonly string[]} args */
function apt(args) {
  const options = [
    "--quiet",
    "--option=APT::Color=0",
    `--option=DPkg::Lock::Timeout=${LOCK_TIMEOUT_SECONDS}`,
    "--option=Dpkg::Options::=--force-confdef",
    "--option=Dpkg::Options::=--force-confold",
  ];
  const env = {
    DEBIAN_FRONTEND: "noninteractive",
    APT_LISTCHANGES_FRONTEND: "none",
    NEEDRESTART_SUSPEND: "1",
    LC_ALL: "C.UTF-8",
  };
  return runAsRoot("apt-get", [...options, ...args], { env });
}

/** @returns {boolean} whether systemd runs this machine */
function hasServiceManager() {
  return existsSync("/run/systemd/system");
}

/**
 * Runs an installation while Debian's own policy hook forbids packages to start services.
 * @param {() => Promise<unknown>} install
 */
async function withoutServices(install) {
  const foreign = existsSync(POLICY) && !readFileSync(POLICY, "utf8").includes(POLICY_MARK);
  if (foreign) {
    await install(); // somebody has a policy already: theirs holds
    return;
  }
  await runAsRoot("tee", [POLICY], { input: `#!/bin/sh\n${POLICY_MARK}\nexit 101\n` });
  try {
    await runAsRoot("chmod", ["755", POLICY]);
    await install();
  } finally {
    await runAsRoot("rm", ["-f", POLICY]);
  }
}
