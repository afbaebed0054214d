import type { Sql } from "../db/transaction.ts";
import { hostSilence } from "../hosts/host-store.ts";
import { unfinishedOperationsOf } from "../operations/operation-subject-store.ts";
import type { VmRecord } from "./vm-record.ts";
import type { Vm } from "./vm-schemas.ts";
import { imageUses } from "./vm-store.ts";
import { viewOf } from "./vm-view.ts";

/** VMs as the API shows them, in the given order: three look-ups, however many VMs. */
export async function viewVms(db: Sql, vms: readonly VmRecord[]): Promise<Vm[]> {
  const ids = vms.map(({ id }) => id);
  const hostIds = [...new Set(vms.flatMap(({ hostId }) => (hostId === null ? [] : [hostId])))];
  const [images, hosts, operations] = await Promise.all([
    imageUses(db, ids),
    hostSilence(db, hostIds),
    unfinishedOperationsOf(db, "vm", ids),
  ]);
  return vms.map((vm) =>
    viewOf(vm, {
      images: images.get(vm.id) ?? [],
      host: (vm.hostId === null ? undefined : hosts.get(vm.hostId)) ?? null,
      operations: operations.get(vm.id) ?? [],
    }),
  );
}

export async function viewVm(db: Sql, vm: VmRecord): Promise<Vm> {
  const [view] = await viewVms(db, [vm]);
  if (view === undefined) throw new Error("a view of one VM is one view");
  return view;
}
