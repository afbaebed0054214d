import { createHash, randomBytes } from "node:crypto";
import type { Sql, Tx } from "../db/transaction.ts";
import { appendEvent } from "../events/event-store.ts";
import { getHost } from "../hosts/host-store.ts";
import { TICKET_PREFIX } from "../http/masked-url.ts";
import type { Capability } from "../hypervisors/hypervisor.ts";
import { DroverError } from "../lib/errors.ts";
import type { TokenId } from "../lib/ids.ts";
import type { VmRecord } from "../vms/vm-record.ts";
import { getVm } from "../vms/vm-store.ts";
import type { ConsoleKind, OpenConsoleBody } from "./console-schemas.ts";
import { type ConsoleTicket, findTicket, insertTicket, takeTicket } from "./console-store.ts";

const SECRET_BYTES = 32;
/** Long enough for a person to follow the link. */
const TICKET_SECONDS = 60;

const ABILITY = { serial: "serialConsole", vnc: "vnc" } as const satisfies Record<ConsoleKind, Capability>;
const WANTS = {
  serialConsole: "a serial console",
  vnc: "a screen that is in reach",
  screenshot: "pictures of the screen",
} as const;

/** A ticket that was made; the secret is here only. */
export interface IssuedTicket {
  readonly secret: string;
  readonly expiresAt: Date;
}

/** Makes a ticket for a VM's console. Throws as requireScreen. */
export async function issueTicket(
  tx: Tx,
  vm: VmRecord,
  { kind, force }: OpenConsoleBody,
  by: { readonly tokenId: TokenId; readonly actor: string },
  lifetimeSeconds: number = TICKET_SECONDS,
): Promise<IssuedTicket> {
  await requireScreen(tx, vm, ABILITY[kind]);
  const secret = TICKET_PREFIX + randomBytes(SECRET_BYTES).toString("base64url");
  const expiresAt = await insertTicket(
    tx,
    hashOf(secret),
    { vmId: vm.id, kind, force, ...by },
    lifetimeSeconds,
  );
  return { secret, expiresAt };
}

/** A ticket that was taken, with the VM whose console it opens. */
export interface Admitted extends ConsoleTicket {
  readonly vm: VmRecord;
}

/** Uses a ticket up and notes who opened what. Throws `not_found` where it is not good, else as requireScreen. */
export async function redeemTicket(tx: Tx, secret: string): Promise<Admitted> {
  const ticket = await takeTicket(tx, hashOf(secret));
  const vm = ticket === null ? null : await getVm(tx, ticket.vmId);
  if (ticket === null || vm === null) throw noTicket();
  await requireScreen(tx, vm, ABILITY[ticket.kind]);
  await appendEvent(tx, {
    type: "vm.console.opened",
    subject: { kind: "vm", id: vm.id, name: vm.name },
    projectId: vm.projectId,
    data: { kind: ticket.kind, force: ticket.force, actor: ticket.actor },
  });
  return { ...ticket, vm };
}

/** The VM and kind that a ticket is good for, or null; it stays good. */
export async function lookAtTicket(
  db: Sql,
  secret: string,
): Promise<{ readonly vmName: string; readonly kind: ConsoleKind } | null> {
  const ticket = await findTicket(db, hashOf(secret));
  const vm = ticket === null ? null : await getVm(db, ticket.vmId);
  return ticket === null || vm === null ? null : { vmName: vm.name, kind: ticket.kind };
}

function noTicket(): DroverError {
  return new DroverError(
    "not_found",
    "The console's ticket was used, is over, or never was: each is good for one connection within a minute. Make a new one with POST /v1/vms/{vm}/console.",
  );
}

/**
 * Requires that the VM is on, on a host that answers and has the ability. Throws DroverError: `host_unreachable`,
 * `invalid_state`, `capability_unsupported`.
 */
export async function requireScreen(db: Sql, vm: VmRecord, ability: keyof typeof WANTS): Promise<void> {
  const host = vm.hostId === null ? null : await getHost(db, vm.hostId);
  if (host?.state === "unreachable") {
    const why = host.error === null ? "" : `: ${host.error.message}`;
    throw new DroverError("host_unreachable", `Host "${host.name}" does not answer${why}`);
  }
  if (vm.power !== "running" && vm.power !== "paused") {
    throw new DroverError(
      "invalid_state",
      `VM "${vm.name}" is ${vm.power}, so there is nothing to be seen of it. Start it first.`,
      { details: { power: vm.power, phase: vm.phase } },
    );
  }
  const offered = host?.facts?.guestTypes.find(({ guestType }) => guestType === vm.guestType);
  if (offered === undefined || offered.capabilities.includes(ability)) return;
  throw lacks(host?.name ?? "", ability);
}

/** The refusal of a host that lacks an ability. */
export function lacks(hostName: string, ability: keyof typeof WANTS): DroverError {
  const advice =
    ability === "vnc" ? " A KVM host's screens are in reach by qemu:///system and qemu+ssh:// URIs." : "";
  return new DroverError(
    "capability_unsupported",
    `Host "${hostName}" has not ${WANTS[ability]} for this VM.${advice} What it can do: GET /v1/hosts/${hostName}.`,
    { details: { capability: ability } },
  );
}

/** Secrets are long and random, so a fast hash without salt keeps them. */
function hashOf(secret: string): Uint8Array {
  return createHash("sha256").update(secret).digest();
}
