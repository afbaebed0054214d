import type { Tx } from "../db/transaction.ts";
import { appendEvent } from "../events/event-store.ts";
import { DroverError } from "../lib/errors.ts";
import { asId, type ProjectId } from "../lib/ids.ts";
import { endLocked, type LockedOperation, lockUnfinished } from "../operations/operation-abandon.ts";
import type { KindRegistry } from "../operations/operation-kinds.ts";
import type { HostRecord } from "./host-record.ts";
import {
  deleteHostRow,
  deleteHostVms,
  findHost,
  hostImageIdsOn,
  lockHost,
  vmsOnHost,
  volumeIdsOnHost,
} from "./host-store.ts";

/**
 * Gives up a dead host with all that was on it: its VMs leave the inventory, what was queued for them ends as failed.
 * Nothing on the host is touched: should it come back, its domains are `unmanaged` there. Throws `not_found`,
 * `invalid_state` for a host that answers, `invalid_request` when the confirmation names another host.
 */
export async function forgetHost(
  tx: Tx,
  kinds: KindRegistry,
  idOrName: string,
  confirmName: string,
): Promise<void> {
  const { host, unfinished } = await lockWithOperations(tx, idOrName);
  requireConfirmed(host, confirmName);
  const error = new DroverError("cancelled", "The host was forgotten: what it was to do there is given up.");
  await endLocked(tx, kinds, unfinished, { state: "failed", error, undone: false });
  for (const vm of await deleteHostVms(tx, host.id)) {
    await appendEvent(tx, {
      type: "vm.forgotten",
      subject: { kind: "vm", id: vm.id, name: vm.name },
      projectId: asId<ProjectId>(vm.projectId),
      data: { host: host.name },
    });
  }
  await deleteHostRow(tx, host.id);
  await appendEvent(tx, {
    type: "host.forgotten",
    subject: { kind: "host", id: host.id, name: host.name },
    projectId: null,
  });
}

/** Lanes and operations first, then the host's row, as everywhere. */
async function lockWithOperations(
  tx: Tx,
  idOrName: string,
): Promise<{ readonly host: HostRecord; readonly unfinished: readonly LockedOperation[] }> {
  const found = await findHost(tx, idOrName);
  if (found === null) throw noSuchHost(idOrName);
  const vms = await vmsOnHost(tx, found.id);
  const unfinished = [
    ...(await lockUnfinished(
      tx,
      "vm",
      vms.map(({ id }) => id),
    )),
    ...(await lockUnfinished(tx, "volume", await volumeIdsOnHost(tx, found.id))),
    ...(await lockUnfinished(tx, "host", [found.id])),
    ...(await lockUnfinished(tx, "hostImage", await hostImageIdsOn(tx, found.id))),
  ];
  const host = await lockHost(tx, found.id);
  if (host === null) throw noSuchHost(idOrName);
  // A VM that was placed meanwhile: nobody places another one while the host's row is locked.
  const known = new Set(vms.map(({ id }) => id));
  const late = (await vmsOnHost(tx, host.id)).flatMap(({ id }) => (known.has(id) ? [] : [id]));
  return { host, unfinished: [...unfinished, ...(await lockUnfinished(tx, "vm", late))] };
}

function noSuchHost(idOrName: string): DroverError {
  return new DroverError("not_found", `There is no host "${idOrName}". List them with GET /v1/hosts.`);
}

function requireConfirmed(host: HostRecord, confirmName: string): void {
  if (confirmName !== host.name) {
    const message = `is not the name of this host, which is "${host.name}"`;
    throw new DroverError("invalid_request", `confirmName ${message}.`, {
      violations: [{ pointer: "/confirmName", message }],
    });
  }
  if (host.state === "ready") {
    throw new DroverError(
      "invalid_state",
      `Host "${host.name}" answers: delete its VMs and then the host; only a dead host can be forgotten.`,
    );
  }
}
