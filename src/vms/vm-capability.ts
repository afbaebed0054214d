import type { Sql } from "../db/transaction.ts";
import { getHost } from "../hosts/host-store.ts";
import type { DeclaredGuestType } from "../hypervisors/capabilities.ts";
import type { Capability, GuestType, Hypervisor } from "../hypervisors/hypervisor.ts";
import { DroverError } from "../lib/errors.ts";
import type { VmRecord } from "./vm-record.ts";

/** Refusals of what cannot be done, before anything is touched. */

/** What a new VM needs of whatever host takes it; null: any. */
export interface Wish {
  readonly hypervisor: Hypervisor | null;
  readonly guestType: GuestType | null;
  readonly capabilities: readonly Capability[];
}

/**
 * Throws `capability_unsupported` when no driver declares what is wished, so that no host will ever take it. Whether one
 * has it now is for placement to say.
 */
export function requireDeclared(declared: readonly DeclaredGuestType[], wish: Wish): void {
  const { hypervisor, guestType, capabilities } = wish;
  const fitting = declared.filter(
    (row) =>
      (hypervisor === null || row.hypervisor === hypervisor) &&
      (guestType === null || row.guestType === guestType),
  );
  const lackingOf = (row: DeclaredGuestType) =>
    capabilities.filter((capability) => !row.capabilities.includes(capability));
  if (fitting.some((row) => lackingOf(row).length === 0)) return;
  const able = [...new Set(declared.filter((row) => lackingOf(row).length === 0).map(nameOf))];
  const least = fitting.map(lackingOf).toSorted((a, b) => a.length - b.length)[0];
  const guests = `guests${guestType === null ? "" : ` of type ${guestType}`}${hypervisor === null ? "" : ` on ${hypervisor}`}`;
  const what =
    least === undefined
      ? `No driver runs ${guests}.`
      : `No driver offers ${least.join(" and ")} for ${guests}.`;
  const instead =
    able.length === 0 ? "No other guest type has it either." : `These have it: ${able.join(", ")}.`;
  throw new DroverError("capability_unsupported", `${what} ${instead} See GET /v1/capabilities.`, {
    details: { hypervisor, guestType, capabilities: [...(least ?? capabilities)], offeredBy: able },
  });
}

function nameOf({ hypervisor, guestType }: DeclaredGuestType): string {
  return `${hypervisor} ${guestType}`;
}

/**
 * Throws `capability_unsupported` when the VM's host does not have the ability for the VM's guest type, by the host's own
 * list. A host that never answered is given the benefit. `verb` says what was to be done, such as "pause".
 */
export async function requireOnHost(
  sql: Sql,
  vm: VmRecord,
  capability: Capability,
  verb: string,
): Promise<void> {
  if (vm.hostId === null) return;
  const facts = (await getHost(sql, vm.hostId))?.facts;
  const offered = facts?.guestTypes.find(({ guestType }) => guestType === vm.guestType);
  if (offered === undefined || offered.capabilities.includes(capability)) return;
  throw new DroverError(
    "capability_unsupported",
    `Host "${vm.hostName ?? ""}" cannot ${verb} a VM of type ${vm.guestType ?? "unknown"}. What it can do: GET /v1/hosts/${vm.hostName ?? ""}.`,
    { details: { capability } },
  );
}
