import type { Tx } from "../db/transaction.ts";
import { deleteNicRow, nicSpecOfRow } from "./vm-nic-store.ts";
import { setObservedGeneration } from "./vm-observation-store.ts";
import type { VmNicSpec, VmRecord } from "./vm-record.ts";
import { updateSpec } from "./vm-store.ts";

/**
 * NICs in a VM's spec. Each change of them has an operation that defines the domain by it, so the domain's definition is
 * as current afterwards as it was.
 */
export async function setNicSpecs(tx: Tx, vm: VmRecord, nics: readonly VmNicSpec[]): Promise<void> {
  await updateSpec(tx, vm.id, { spec: { ...vm.spec, nics } });
  if (vm.observedGeneration === vm.generation) await setObservedGeneration(tx, vm.id, vm.generation + 1);
}

/** Takes a NIC out of the inventory, its addresses with it, and out of the spec where it still stands there. */
export async function dropNic(tx: Tx, vm: VmRecord, nic: string): Promise<void> {
  await deleteNicRow(tx, vm.id, nic);
  const others = vm.spec.nics.filter(({ name }) => name !== nic);
  if (others.length !== vm.spec.nics.length) await setNicSpecs(tx, vm, others);
}

/** Puts a NIC that was to be taken out into the spec again. */
export async function restoreNic(tx: Tx, vm: VmRecord, nic: string): Promise<void> {
  if (vm.spec.nics.some(({ name }) => name === nic)) return;
  const spec = await nicSpecOfRow(tx, vm.id, nic);
  if (spec !== null) await setNicSpecs(tx, vm, [...vm.spec.nics, spec]);
}
