// Where Debian packages for another root file system come from: the mirrors this machine's own apt uses.
import { run, runToEnd } from "../run-program.mjs";

const FALLBACK = {
  debian: "http://deb.debian.org/debian",
  "debian-security": "http://deb.debian.org/debian-security",
};
// How apt reaches a mirror: proxies, certificates, patience. The rest of its settings are this machine's own affair.
const FETCH_SETTING = /^Acquire::(https?(::|\b)|Retries|Check-)/;

/**
 * @param {string} targets lines "URI RELEASE" of what apt is configured to take
 * @param {string} suite "bookworm"
 * @returns {string[]} sources.list lines for a Debian release
 */
export function sourcesFor(targets, suite) {
  const known = targets
    .split("\n")
    .map((line) => line.trim().split(" "))
    .flatMap(([uri = "", release = ""]) => (uri === "" ? [] : [{ uri: uri.replace(/\/+$/, ""), release }]));
  /** @type {(kind: "debian" | "debian-security", release: string) => string} */
  const mirror = (kind, release) =>
    known.find((one) => one.release === release)?.uri ??
    known.find((one) => one.uri.endsWith(`/${kind}`))?.uri ??
    FALLBACK[kind];
  return [
    `deb ${mirror("debian", suite)} ${suite} main`,
    `deb ${mirror("debian", suite)} ${suite}-updates main`,
    `deb ${mirror("debian-security", `${suite}-security`)} ${suite}-security main`,
  ];
}

/**
 * @param {string} suite
 * @returns {Promise<string[]>} sources.list lines
 */
export async function debianSources(suite) {
  // Status 100 where no list of sources is readable: the public mirrors are left.
  const format = "$(REPO_URI) $(RELEASE)";
  const { stdout } = await runToEnd("apt-get", ["indextargets", "--format", format]);
  return sourcesFor(stdout, suite);
}

/** @returns {Promise<string[]>} this machine's apt settings for fetching, as lines of an apt.conf */
export async function fetchSettings() {
  const lines = (await run("apt-config", ["dump"])).split("\n");
  return lines.filter((line) => FETCH_SETTING.test(line) && !line.endsWith('"";'));
}
