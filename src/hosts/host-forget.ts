import type { Tx } from "../db/transaction.ts";
import { appendEvent } from "../events/event-store.ts";
import { DroverError } from "../lib/errors.ts";
import { asId, type OperationId, type ProjectId } from "../lib/ids.ts";
import { contextOf, endOperation, lockOperation, readSnapshot } from "../operations/operation-end.ts";
import type { KindRegistry } from "../operations/operation-kinds.ts";
import { lockSubjects } from "../operations/operation-lanes.ts";
import { subjectsOf } from "../operations/operation-queue.ts";
import { releaseClaim, unfinishedOperationsOf } from "../operations/operation-subject-store.ts";
import { deleteHostRow, deleteHostVms, lockHost, vmsOnHost } from "./host-store.ts";

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
  const vms = await vmsOnHost(tx, idOrName);
  await endOperations(
    tx,
    kinds,
    "vm",
    vms.map(({ id }) => id),
  );
  const host = await lockHost(tx, idOrName);
  if (host === null)
    throw new DroverError("not_found", `There is no host "${idOrName}". List them with GET /v1/hosts.`);
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
  await endOperations(tx, kinds, "host", [host.id]);
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

/** Ends what is unfinished on these subjects. Whoever runs it is fenced by it, and compensates nothing. */
async function endOperations(
  tx: Tx,
  kinds: KindRegistry,
  kind: "vm" | "host",
  ids: readonly string[],
): Promise<void> {
  const unfinished = await unfinishedOperationsOf(tx, kind, ids);
  for (const id of [...unfinished.values()].flat().map((text) => asId<OperationId>(text))) {
    const subjects = await subjectsOf(tx, id);
    await lockSubjects(tx, subjects);
    await lockOperation(tx, id);
    await releaseClaim(tx, id);
    const now = await readSnapshot(tx, id);
    if (now === null || now.ended) continue;
    const error = new DroverError(
      "cancelled",
      "The host was forgotten: what it was to do there is given up.",
    );
    const outcome = { state: "failed", error, undone: false } as const;
    await endOperation(tx, kinds, contextOf(kinds, now), { outcome, subjects, claim: null });
  }
}
