// npm test: sets up everything the tests need and runs them all, real hypervisors included.
import { existsSync, readFileSync } from "node:fs";
import {
  BUILD_PACKAGES,
  browserPackages,
  canInstallPackages,
  ensurePackages,
  GUEST_IMAGE_PACKAGES,
  HYPERVISOR_PACKAGES,
  missingPackages,
  TEST_PACKAGES,
  XEN_HOST_PACKAGES,
} from "./debian-packages.mjs";
import { buildGuestImage } from "./guest-image.mjs";
import { ensureInstalled } from "./install.mjs";
import { rootAccess } from "./privileges.mjs";
import { logLine, withProgress } from "./progress.mjs";
import { PROJECT_DIR, projectEnvironment, projectProgram } from "./project.mjs";
import { runVisibly } from "./run-program.mjs";
import { runScript } from "./run-script.mjs";
import { xenVersionOf } from "./xen-host/flavours.mjs";
import { buildXenHost } from "./xen-host.mjs";

const RELEASE = "/etc/os-release";
const PACKAGES = [
  ...HYPERVISOR_PACKAGES,
  ...GUEST_IMAGE_PACKAGES,
  ...BUILD_PACKAGES,
  ...XEN_HOST_PACKAGES,
  ...TEST_PACKAGES,
  ...browserPackages(existsSync(RELEASE) ? readFileSync(RELEASE, "utf8") : ""),
];
// These start hypervisors; what is left runs anywhere.
const NEED_ROOT = ["test/contract/**", "test/e2e/**", "test/crash/{qemu,xen}-*"];
// A Xen host is an emulated machine here, in which a program takes a tenth of a second to start: these take half an hour
// and more. `--xen` runs them, and the others on Xen.
const LONG_ON_XEN = [
  "test/contract/xl-{pv,pvh,hvm,lvm}.test.ts",
  "test/crash/xen-*",
  "test/e2e/{mixed-fleet,xen-}*",
];
const ON_XEN = [
  "test/contract/xen",
  "test/contract/xl",
  "test/crash/xen",
  "test/e2e/mixed-fleet",
  "test/e2e/xen",
];

/**
 * Everything that runs without root.
 * @param {readonly string[]} args
 * @returns {Promise<number>} status
 */
async function testWithoutRoot(args) {
  await ensureInstalled();
  return runVitest([], [...NEED_ROOT.flatMap((pattern) => ["--exclude", pattern]), ...args]);
}

/**
 * @param {readonly string[]} args
 * @returns {Promise<number>} status
 */
async function testAll(args) {
  const access = await rootAccess();
  const obstacle = access === "none" ? "no root and no sudo without a password" : await packageObstacle();
  if (obstacle !== undefined) {
    logLine(
      `${obstacle}: npm test cannot start hypervisors here; run npm run test:nosudo for the other tests`,
    );
    return 1;
  }
  await ensureInstalled();
  await withProgress(logLine, "looking for Debian packages", () =>
    ensurePackages(PACKAGES, { announce: logLine, startServices: false }),
  );
  await withProgress(logLine, "building the guest image", () => buildGuestImage({ log: logLine }));
  const version = xenVersionOf(process.env["DROVER_TEST_XEN"]);
  await withProgress(logLine, `building the Xen ${version} host`, () =>
    buildXenHost({ version, log: logLine }),
  );
  const chosen = args.includes("--xen")
    ? [...ON_XEN, "--no-file-parallelism", ...args.filter((arg) => arg !== "--xen")]
    : [...LONG_ON_XEN.flatMap((pattern) => ["--exclude", pattern]), ...args];
  return runVitest(access === "sudo" ? ["sudo", "-n", "--preserve-env"] : [], chosen);
}

/** @returns {Promise<string | undefined>} why packages that are missing cannot be installed */
async function packageObstacle() {
  const answer = await canInstallPackages();
  if (answer.possible || (await missingPackages(PACKAGES)).length === 0) return undefined;
  return answer.reason;
}

/**
 * @param {readonly string[]} prefix program and arguments that run what follows
 * @param {readonly string[]} args
 */
function runVitest(prefix, args) {
  const env = projectEnvironment();
  // Sudo finds programs by a path of its own: hand ours to what it runs.
  const vitest = [
    "env",
    `PATH=${env["PATH"] ?? ""}`,
    projectProgram("vitest"),
    "run",
    "--config",
    ".config/vitest.config.ts",
  ];
  const [program = "", ...rest] = [...prefix, ...vitest, ...args];
  return runVisibly(program, rest, { cwd: PROJECT_DIR, env });
}

const args = process.argv.slice(2);
await runScript(() =>
  args.includes("--nosudo") ? testWithoutRoot(args.filter((arg) => arg !== "--nosudo")) : testAll(args),
);
