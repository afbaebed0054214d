import { randomInt } from "node:crypto";
import { execa } from "execa";
import { type Namespace, runInside } from "../../../src/setup/private-libvirt/namespace.mjs";

/** Point-to-point network between the machine and one host. It goes when the host's network namespace does. */
export interface Link {
  readonly machineEnd: string;
  readonly machineAddress: string;
  readonly hostAddress: string;
}

// 198.18.0.0/15 is set aside for tests (RFC 2544), so nothing real is hidden. Cut into /30: two usable addresses each.
const SLOTS = 2 ** 15;
const HOST_END = "lan0";
const ATTEMPTS = 20;

/** Joins a host's network namespace to the machine's. The name and the addresses are unique on the machine. */
export async function makeLink(namespace: Namespace): Promise<Link> {
  for (let attempt = 1; ; attempt += 1) {
    const link = linkOfSlot(randomInt(SLOTS));
    if (await isRouted(link.hostAddress)) continue;
    const ends = ["type", "veth", "peer", "name", HOST_END, "netns", String(namespace.holder.pid)];
    const added = await execa("ip", ["link", "add", link.machineEnd, ...ends], {
      reject: attempt === ATTEMPTS,
    });
    if (added.failed) continue;
    await configure(namespace, link);
    return link;
  }
}

/** Removes a link at once; the kernel itself takes its time after the namespace has ended. */
export async function removeLink(link: Link): Promise<void> {
  // Already gone where the host's end was deleted inside: what was wanted.
  await execa("ip", ["link", "delete", link.machineEnd], { reject: false });
}

function linkOfSlot(slot: number): Link {
  const first = slot * 4;
  const address = (offset: number): string => {
    const host = first + offset;
    return `198.${String(18 + (host >> 16))}.${String((host >> 8) & 255)}.${String(host & 255)}`;
  };
  return { machineEnd: `drvkvm${String(slot)}`, machineAddress: address(1), hostAddress: address(2) };
}

async function isRouted(address: string): Promise<boolean> {
  const { stdout } = await execa("ip", ["-o", "route", "show", "match", address]);
  return stdout.split("\n").some((route) => route !== "" && !route.startsWith("default"));
}

async function configure(namespace: Namespace, link: Link): Promise<void> {
  await execa("ip", ["address", "add", `${link.machineAddress}/30`, "dev", link.machineEnd]);
  await execa("ip", ["link", "set", link.machineEnd, "up"]);
  await runInside(namespace, "ip", ["address", "add", `${link.hostAddress}/30`, "dev", HOST_END]);
  await runInside(namespace, "ip", ["link", "set", HOST_END, "up"]);
}
