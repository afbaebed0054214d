/**
 * What the daemon tells unasked. Subscribe with connectDomainEventCallbackRegisterAny and an `eventId`
 * of domainEventId (virDomainEventID). Adding an event: one entry here, one in domainEventId.
 */
import { type Codec, int, nullable, string, struct, uhyper } from "../codec.ts";
import type { Domain } from "../structures.ts";
import { domain, type TypedParam, typedParams } from "../structures.ts";
import { XdrReader } from "../xdr.ts";

const JOB_STATS_MAX = 64;

/** One event. `callbackId` is what the registration returned. Numbers as in libvirt's enums. */
export type DomainEvent = { readonly callbackId: number; readonly domain: Domain } & (
  | { readonly kind: "lifecycle"; readonly event: number; readonly detail: number }
  | { readonly kind: "reboot" }
  | {
      readonly kind: "ioError";
      readonly srcPath: string;
      readonly devAlias: string;
      readonly action: number;
      readonly reason: string;
    }
  | { readonly kind: "controlError" }
  | { readonly kind: "balloonChange"; readonly actual: bigint }
  | { readonly kind: "deviceRemoved"; readonly devAlias: string }
  | { readonly kind: "deviceRemovalFailed"; readonly devAlias: string }
  | { readonly kind: "agentLifecycle"; readonly state: number; readonly reason: number }
  | { readonly kind: "jobCompleted"; readonly params: readonly TypedParam[] }
  | { readonly kind: "metadataChange"; readonly type: number; readonly uri: string | null }
);

export type DomainEventKind = DomainEvent["kind"];

/** virDomainEventID of the events we read, for registering. `ioError` is the form that has a reason. */
export const domainEventId = {
  lifecycle: 0,
  reboot: 1,
  ioError: 6,
  controlError: 7,
  balloonChange: 13,
  deviceRemoved: 15,
  agentLifecycle: 18,
  jobCompleted: 21,
  deviceRemovalFailed: 22,
  metadataChange: 23,
} as const satisfies Record<DomainEventKind, number>;

type Body<K extends DomainEventKind> = Omit<Extract<DomainEvent, { kind: K }>, "kind">;

/** How each kind of event is numbered (a remote_procedure) and laid out. */
type EventTable = {
  readonly [K in DomainEventKind]: { readonly number: number; readonly body: Codec<Body<K>> };
};

const eventTable: EventTable = {
  lifecycle: { number: 318, body: struct({ callbackId: int, domain, event: int, detail: int }) },
  reboot: { number: 319, body: struct({ callbackId: int, domain }) },
  ioError: {
    number: 324,
    body: struct({ callbackId: int, domain, srcPath: string, devAlias: string, action: int, reason: string }),
  },
  controlError: { number: 325, body: struct({ callbackId: int, domain }) },
  balloonChange: { number: 331, body: struct({ callbackId: int, domain, actual: uhyper }) },
  deviceRemoved: { number: 333, body: struct({ callbackId: int, domain, devAlias: string }) },
  agentLifecycle: { number: 348, body: struct({ callbackId: int, domain, state: int, reason: int }) },
  jobCompleted: {
    number: 363,
    body: struct({ callbackId: int, domain, params: typedParams(JOB_STATS_MAX) }),
  },
  deviceRemovalFailed: { number: 367, body: struct({ callbackId: int, domain, devAlias: string }) },
  metadataChange: {
    number: 379,
    body: struct({ callbackId: int, domain, type: int, uri: nullable(string) }),
  },
};

const eventsByNumber: ReadonlyMap<number, { kind: DomainEventKind; body: Codec<unknown> }> = new Map(
  Object.entries(eventTable).map(([kind, { number, body }]) => [
    number,
    { kind: kind as DomainEventKind, body },
  ]),
);

/** Every event's layout by the number of its message, for tests that go over all of them. */
export const eventBodies: ReadonlyMap<number, Codec<unknown>> = new Map(
  [...eventsByNumber].map(([number, { body }]) => [number, body]),
);

/** Reads an event message, or null for one we do not know. Throws XdrError. */
export function decodeDomainEvent(number: number, body: Buffer): DomainEvent | null {
  const entry = eventsByNumber.get(number);
  if (entry === undefined) return null;
  const r = new XdrReader(body);
  const fields = entry.body.read(r);
  r.requireEnd();
  // The table ties each kind to the fields of that kind, which a lookup by number loses.
  return { kind: entry.kind, ...(fields as object) } as DomainEvent;
}
