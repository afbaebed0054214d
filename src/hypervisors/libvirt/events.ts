import {
  connectDomainEventCallbackRegisterAny,
  type DomainEvent,
  type DomainEventKind,
  domainEventId,
  type LibvirtConnection,
  LibvirtError,
} from "../../libvirt-rpc/index.ts";
import type { Call, HostEvent } from "../hypervisor.ts";

/** What we listen to; a daemon or driver that does not have one of the others is no reason to refuse it. */
const KINDS: readonly DomainEventKind[] = [
  "lifecycle",
  "reboot",
  "ioError",
  "controlError",
  "metadataChange",
  "agentLifecycle",
];

/** Subscribes to what a host tells of its domains. Rejects when even lifecycle events cannot be had. */
export async function subscribe(main: LibvirtConnection, { signal, timeoutMs }: Omit<Call, "beforeSend">) {
  await Promise.all(
    KINDS.map(async (kind) => {
      const args = { eventId: domainEventId[kind], domain: null };
      try {
        await main.call(connectDomainEventCallbackRegisterAny, args, { signal, timeoutMs });
      } catch (error) {
        if (kind === "lifecycle" || !(error instanceof LibvirtError)) throw error;
      }
    }),
  );
}

/** virDomainEventType and, in the same order, the details of each, from libvirt-domain.h. */
const LIFECYCLE: readonly (readonly [string, readonly string[]])[] = [
  ["defined", ["added", "updated", "renamed", "from-snapshot"]],
  ["undefined", ["removed", "renamed"]],
  ["started", ["booted", "migrated", "restored", "from-snapshot", "wakeup"]],
  [
    "suspended",
    [
      "paused",
      "migrated",
      "ioerror",
      "watchdog",
      "restored",
      "from-snapshot",
      "api-error",
      "postcopy",
      "postcopy-failed",
    ],
  ],
  ["resumed", ["unpaused", "migrated", "from-snapshot", "postcopy", "postcopy-failed"]],
  ["stopped", ["shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from-snapshot"]],
  ["shutdown", ["finished", "guest", "host"]],
  ["pmsuspended", ["memory", "disk"]],
  ["crashed", ["panicked", "crashloaded"]],
];

/** virConnectDomainEventAgentLifecycleState. */
const AGENT_CONNECTED = 1;

/** A libvirt event as a hint of the contract, or null where it tells nothing about a domain's state. */
export function toHostEvent(event: DomainEvent): HostEvent | null {
  const detail = detailOf(event);
  return detail === null ? null : { kind: "domain-changed", uuid: event.domain.uuid, detail };
}

/**
 * Lifecycle events that leave a domain's definition as it was, with their details: it booted, was suspended or was
 * resumed. One that was restored is again what it was when it was saved, whatever was defined since.
 */
const SAME_DEFINITION: ReadonlySet<string> = new Set([
  "started: booted",
  "suspended: paused",
  "resumed: unpaused",
]);

/** True when what we remember of the domain's definition may be out of date. */
export function changesDefinition(event: DomainEvent): boolean {
  if (event.kind === "lifecycle") return !SAME_DEFINITION.has(lifecycleDetail(event.event, event.detail));
  // The channel's state stands in the definition of a domain that is on.
  return event.kind === "metadataChange" || event.kind === "agentLifecycle";
}

function detailOf(event: DomainEvent): string | null {
  switch (event.kind) {
    case "lifecycle":
      return lifecycleDetail(event.event, event.detail);
    case "reboot":
      return "reboot";
    case "ioError":
      return event.reason === "" ? "io-error" : `io-error: ${event.reason}`;
    case "controlError":
      return "control-error";
    case "metadataChange":
      return "metadata-changed";
    case "agentLifecycle":
      return event.state === AGENT_CONNECTED ? "agent: connected" : "agent: disconnected";
    case "balloonChange":
    case "deviceRemoved":
    case "deviceRemovalFailed":
    case "jobCompleted":
      return null;
  }
}

function lifecycleDetail(event: number, detail: number): string {
  const [name, details] = LIFECYCLE[event] ?? [`lifecycle-${event}`, []];
  const reason = details[detail];
  return reason === undefined ? name : `${name}: ${reason}`;
}
