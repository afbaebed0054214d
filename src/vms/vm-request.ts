import type { OperationId, ProjectId } from "../lib/ids.ts";

/** Who asks for a change of a VM, and where. */
export interface VmRequest {
  readonly projectId: ProjectId;
  readonly actor: string;
  readonly requestId: string;
}

/** A VM's id with the operation that was queued for it. */
export interface Queued<Id> {
  readonly id: Id;
  readonly operationId: OperationId;
}
