import { expect, test } from "vitest";
import type { HostConnection, ObservedPower } from "../../../src/hypervisors/hypervisor.ts";
import { newId, type OperationId, type VmId } from "../../../src/lib/ids.ts";
import type { UndoContext } from "../../../src/operations/operation-kind.ts";
import { start } from "../../../src/vms/actions/start.ts";

/** Takes a start back on a host that shows this power; returns the calls that changed something. */
async function undoStart(found: UndoContext<unknown, object>["found"], power: ObservedPower | null) {
  const changes: string[] = [];
  const vmId = newId<VmId>();
  const host = {
    observeDomain: async () => (power === null ? null : { power }),
    forceOffDomain: async (uuid: string) => {
      changes.push(`off ${uuid === vmId ? "ours" : uuid}`);
    },
    saveDomain: async (uuid: string) => {
      changes.push(`saved ${uuid === vmId ? "ours" : uuid}`);
    },
  } as unknown as HostConnection;
  const signal = new AbortController().signal;
  await start.kind.steps[0]?.undo?.({
    operation: { id: newId<OperationId>(), kind: "vm.start", projectId: null, input: { vmId } },
    ...{ signal, host, resumed: false, found: found as never },
    call: { signal, timeoutMs: 1_000, beforeSend: () => undefined },
    read: () => Promise.reject(new Error("nothing is to be read")),
    transaction: () => Promise.reject(new Error("nothing is to be written")),
    progress: () => undefined,
  });
  return changes;
}

test("the undo of a start leaves a VM on that was on before it", async () => {
  expect(await undoStart({ wasOn: true, wasDefined: true }, "running")).toEqual([]);
});

test("the undo of a start switches off what it started", async () => {
  expect(await undoStart({ wasOn: false, wasDefined: true }, "running")).toEqual(["off ours"]);
});

test("the undo of a start saves again what was saved, and throws nothing away", async () => {
  const found = { wasOn: false, wasSaved: true, wasDefined: true };
  expect(await undoStart(found, "running")).toEqual(["saved ours"]);
  expect(await undoStart(found, "saved")).toEqual([]);
});

test("the undo of a start that never came to act does nothing", async () => {
  expect(await undoStart(null, "running")).toEqual([]);
  expect(await undoStart({ wasOn: false, wasDefined: true }, "off")).toEqual([]);
  expect(await undoStart({ wasOn: false, wasDefined: false }, null)).toEqual([]);
});
