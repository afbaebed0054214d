import type { AgentState } from "../hypervisor.ts";
import { AGENT_CHANNEL } from "./agent-channel.ts";
import { MARK_ELEMENT, MARK_NAMESPACE, type OwnershipMark } from "./ownership.ts";
import { findMark } from "./parse-mark.ts";
import { attribute, child, childrenNamed, parseXml, sizeBytes, textAt, wholeNumber } from "./xml.ts";

/** What we take from a domain's XML. */
export interface DomainFacts extends OwnershipMark {
  /** Virtual CPUs that it uses now; more may be pluggable. */
  readonly cpuCount: number;
  /** The most memory that it may take, whatever its balloon says now. */
  readonly memoryMib: number;
  /** The channel to the agent in the guest; absent: it has none. */
  readonly agent?: AgentState;
}

const DOCUMENT = "domain";

/** Reads a domain's XML as virDomainGetXMLDesc gives it. Throws HypervisorError (`failed`) for anything else. */
export function parseDomain(xml: string): DomainFacts {
  const root = parseXml(xml, DOCUMENT);
  const vcpu = child(root, "vcpu");
  const agent = agentIn(root);
  return {
    ...findMark(root, MARK_ELEMENT, MARK_NAMESPACE),
    cpuCount: wholeNumber(attribute(vcpu, "current") ?? textAt(root, "vcpu"), DOCUMENT, "<vcpu>"),
    memoryMib: Math.ceil(sizeBytes(child(root, "memory"), "KiB", DOCUMENT) / 2 ** 20),
    ...(agent === null ? {} : { agent }),
  };
}

/** A domain that is off has no state there: nothing is connected. */
function agentIn(root: Parameters<typeof child>[0]): AgentState | null {
  const targets = childrenNamed(child(root, "devices"), "channel").map((channel) => child(channel, "target"));
  const target = targets.find((one) => attribute(one, "name") === AGENT_CHANNEL);
  if (target === undefined) return null;
  return attribute(target, "state") === "connected" ? "connected" : "disconnected";
}

/** The MAC addresses of a domain's network interfaces, in lower case and in their order. */
export function parseMacAddresses(xml: string): readonly string[] {
  const interfaces = childrenNamed(child(parseXml(xml, DOCUMENT), "devices"), "interface");
  return interfaces.flatMap((nic) => attribute(child(nic, "mac"), "address")?.toLowerCase() ?? []);
}
