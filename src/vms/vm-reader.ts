import type { Sql } from "../db/transaction.ts";
import { DroverError } from "../lib/errors.ts";
import type { ProjectId, VmId } from "../lib/ids.ts";
import type { VmRecord } from "./vm-record.ts";
import type { Vm } from "./vm-schemas.ts";
import { findVm, getVmToView, surroundingsOf } from "./vm-store.ts";
import { viewOf } from "./vm-view.ts";

const ALONE = { images: [], nics: [], host: null, operations: [], agent: null, diskPools: [] };

/** VMs as the API shows them, in the given order: one look-up, however many VMs. */
export async function viewVms(db: Sql, vms: readonly VmRecord[]): Promise<Vm[]> {
  const around = await surroundingsOf(
    db,
    vms.map(({ id }) => id),
  );
  return vms.map((vm) => viewOf(vm, around.get(vm.id) ?? ALONE));
}

export async function viewVm(db: Sql, vm: VmRecord): Promise<Vm> {
  const [view] = await viewVms(db, [vm]);
  if (view === undefined) throw new Error("a view of one VM is one view");
  return view;
}

/** Throws `not_found`. */
export async function vmNamed(db: Sql, projectId: ProjectId, idOrName: string): Promise<VmRecord> {
  const vm = await findVm(db, projectId, idOrName);
  if (vm !== null) return vm;
  throw new DroverError(
    "not_found",
    `There is no VM "${idOrName}" in this project. List them with GET /v1/vms.`,
  );
}

/**
 * The view of a VM that was just changed in this transaction. Throws `not_found`: a delete that joins another one locks
 * nothing, and that one may have ended meanwhile.
 */
export async function changedVm(
  tx: Sql,
  id: VmId,
): Promise<{ readonly view: Vm; readonly generation: number }> {
  const found = await getVmToView(tx, id);
  if (found === null) throw new DroverError("not_found", `The VM ${id} was deleted meanwhile.`);
  return { view: viewOf(found.vm, found.around), generation: found.vm.generation };
}
