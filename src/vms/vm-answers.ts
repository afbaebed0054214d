import { z } from "zod";
import type { Database } from "../db/client.ts";
import type { ProjectId } from "../lib/ids.ts";
import { OperationSchema } from "../operations/operation-schemas.ts";
import { viewVm } from "./vm-reader.ts";
import { type Vm, VmSchema } from "./vm-schemas.ts";
import { findVm } from "./vm-store.ts";

/** What changes of VMs that touch a host are answered with. */
export const VmAnswer = z.strictObject({ vm: VmSchema, operation: OperationSchema }).meta({ id: "VmAnswer" });

/** The VM of a 202 anew after `?wait=`; null when it is gone by then. */
export function refresher(db: Database) {
  return async ({ vm }: { readonly vm: Vm }, call: { readonly project: { readonly id: ProjectId } }) => {
    const fresh = await findVm(db, call.project.id, vm.id);
    return fresh === null ? null : { body: { vm: await viewVm(db, fresh) }, generation: fresh.generation };
  };
}
