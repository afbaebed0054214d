import { z } from "zod";
import { formatIp, parseIp } from "../../lib/ip-address.ts";
import { type AgentAddress, type AgentReport, HypervisorError } from "../hypervisor.ts";

/**
 * Reads what an agent in a guest answers, as libvirt passes it on. A guest may say anything: every answer is bounded,
 * and what is kept of it is plain text and addresses. Pure.
 */

/** What an agent is asked, as it is written. */
export type AgentCommand = "guest-get-host-name" | "guest-get-osinfo" | "guest-network-get-interfaces";

/** Room for the statistics of some thousand interfaces, of which the guest of a cluster has as many as containers. */
const MAX_ANSWER_CHARACTERS = 2 ** 20;
/** More on interfaces that can be one of ours is no machine's. */
const MAX_ADDRESSES = 256;

/** One line without control characters and half characters, of which terminals and Postgres make what they like. */
const Line = z
  .string()
  .max(255)
  .regex(/^[^\p{Cc}\p{Cs}\u2028\u2029]*$/u, "is not one line of text");

const HostName = z.object({ "host-name": Line });

const OsInfo = z.object({
  "pretty-name": Line.optional(),
  name: Line.optional(),
  version: Line.optional(),
  "kernel-release": Line.optional(),
});

const Interfaces = z.array(
  z.object({
    "hardware-address": z.string().optional(),
    "ip-addresses": z.array(z.object({ "ip-address": z.string() })).optional(),
  }),
);

export function parseHostName(answer: string): Pick<AgentReport, "hostName"> {
  return { hostName: told(read("guest-get-host-name", HostName, answer)["host-name"]) };
}

export function parseOsInfo(answer: string): Pick<AgentReport, "osName" | "kernelRelease"> {
  const info = read("guest-get-osinfo", OsInfo, answer);
  const composed = [info.name, info.version].flatMap((part) => told(part) ?? []).join(" ");
  return {
    osName: told(info["pretty-name"]) ?? told(composed.slice(0, 255)),
    kernelRelease: told(info["kernel-release"]),
  };
}

/** Each address once, in the guest's order; what is no address of a network card is left out. */
export function parseInterfaces(answer: string): Pick<AgentReport, "addresses"> {
  const found = new Map<string, AgentAddress>();
  for (const nic of read("guest-network-get-interfaces", Interfaces, answer)) {
    const macAddress = nic["hardware-address"]?.toLowerCase() ?? "";
    if (!MAC_ADDRESS.test(macAddress) || macAddress === NO_CARD) continue;
    for (const { "ip-address": text } of nic["ip-addresses"] ?? []) {
      const address = usable(text);
      if (address !== null) found.set(`${macAddress} ${address}`, { macAddress, address });
      if (found.size === MAX_ADDRESSES) return { addresses: [...found.values()] };
    }
  }
  return { addresses: [...found.values()] };
}

const MAC_ADDRESS = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/;
/** What Linux gives its loopback interface. */
const NO_CARD = "00:00:00:00:00:00";

/** The address in one spelling; null for what is none, or leads to nobody from outside: loopback and link-local ones. */
function usable(text: string): string | null {
  const parsed = parseIp(text);
  if (parsed === null) return null;
  const { family, value } = parsed;
  const isLocal =
    family === "ipv4"
      ? value >> 24n === 127n || value === 0n
      : value <= 1n || value >> 118n === 0xfe80n >> 6n;
  return isLocal ? null : formatIp(family, value);
}

function told(text: string | undefined): string | null {
  return text === undefined || text === "" ? null : text;
}

function read<T>(command: AgentCommand, schema: z.ZodType<T>, answer: string): T {
  if (answer.length > MAX_ANSWER_CHARACTERS) throw unreadable(command, "it is too long");
  let value: unknown;
  try {
    value = JSON.parse(answer);
  } catch (cause) {
    throw unreadable(command, "it is no JSON", cause);
  }
  const parsed = z.object({ return: schema }).safeParse(value);
  if (parsed.success) return parsed.data.return;
  const issue = parsed.error.issues[0];
  throw unreadable(command, `${issue?.path.join(".") ?? ""}: ${issue?.message ?? ""}`, parsed.error);
}

function unreadable(command: AgentCommand, why: string, cause?: unknown): HypervisorError {
  const message = `what the agent in the guest answers to ${command} cannot be right: ${why}`;
  return new HypervisorError("failed", message, { cause });
}
