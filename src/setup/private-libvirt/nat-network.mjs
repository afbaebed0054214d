// Whether and where network `default` can be made in the machine's own network.
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { run, runToEnd } from "../run-program.mjs";

/** @typedef {{ bridge: string, subnet: string }} NatNetwork subnet: the first three bytes of a /24 */

// 192.168.128.0/24 to 192.168.254.0/24, save libvirt's own 122 and what home routers use.
const FIRST = 128;
const LAST = 254;

/**
 * Chooses the first /24 from a start that no address or route of the machine is in.
 * @param {readonly string[]} taken IPv4 addresses and prefixes, "192.168.130.1/24"; others do no harm
 * @param {number} start any whole number
 * @returns {string | undefined} "192.168.131", undefined when all are taken
 */
export function chooseSubnet(taken, start) {
  const count = LAST - FIRST + 1;
  const used = taken.flatMap(toRange);
  for (let step = 0; step < count; step += 1) {
    const subnet = `192.168.${FIRST + ((start + step) % count)}`;
    const [own] = toRange(`${subnet}.0/24`);
    if (own !== undefined && !used.some((range) => range.first <= own.last && own.first <= range.last))
      return subnet;
  }
  return undefined;
}

/**
 * @param {string} prefix
 * @returns {{ first: number, last: number }[]} addresses as numbers; empty for what is no IPv4 prefix
 */
function toRange(prefix) {
  const match = /^(\d+)\.(\d+)\.(\d+)\.(\d+)(?:\/(\d+))?$/.exec(prefix);
  if (match === null) return [];
  const address = match.slice(1, 5).reduce((number, byte) => number * 256 + Number(byte), 0);
  const size = 2 ** (32 - Number(match[5] ?? 32));
  const first = Math.floor(address / size) * size;
  return [{ first, last: first + size - 1 }];
}

/**
 * Finds names and addresses for a NAT network of a private libvirt.
 * @param {string} dir of the private libvirt: another gets another network
 * @returns {Promise<{ network: NatNetwork } | { network: undefined, reason: string }>}
 */
export async function findNatNetwork(dir) {
  const obstacle = await natObstacle();
  if (obstacle !== undefined) return { network: undefined, reason: obstacle };
  const digest = createHash("sha256").update(dir).digest();
  const bridge = `drv${digest.toString("hex", 0, 4)}`;
  const subnet = chooseSubnet(await takenPrefixes(bridge), digest.readUInt16BE(4));
  if (subnet === undefined) return { network: undefined, reason: "no address range is free" };
  return { network: { bridge, subnet } };
}

/** @returns {Promise<string | undefined>} what this machine lacks for a NAT network */
async function natObstacle() {
  if (!existsSync("/dev/net/tun")) return "there is no /dev/net/tun";
  if (!existsSync("/usr/sbin/dnsmasq")) return "dnsmasq is not installed";
  const rules = await runToEnd("iptables", ["--wait", "--table", "nat", "--list-rules"]).catch(
    () => undefined,
  );
  return rules?.status === 0 ? undefined : "iptables has no nat table here";
}

/**
 * @param {string} ownBridge left out: it is there when an earlier run was killed
 * @returns {Promise<string[]>}
 */
async function takenPrefixes(ownBridge) {
  const addresses = await run("ip", ["-4", "-oneline", "address", "show"]);
  const routes = await run("ip", ["-4", "-oneline", "route", "show", "table", "all"]);
  const lines = `${addresses}\n${routes}`.split("\n").filter((line) => !line.includes(ownBridge));
  return lines.flatMap((line) => line.split(/\s+/)).filter((word) => word.includes("."));
}
