import { z } from "zod";
import type { ObservedPower } from "../../hypervisors/hypervisor.ts";
import { DroverError } from "../../lib/errors.ts";
import { step } from "../../operations/operation-kind.ts";
import { defineVmAction } from "../vm-action.ts";
import {
  hostOf,
  look,
  MEMORY_LIMIT_SECONDS,
  observeForCertain,
  VmInput,
  vmHost,
  writeSeen,
} from "../vm-steps.ts";
import { switchOffAgain } from "./start.ts";

type Found = { power: ObservedPower | null };

/** Brings a saved VM back as it was. A running one is left alone. */
export const restore = defineVmAction({
  name: "restore",
  summary: "Restore a VM",
  description:
    "Brings a saved VM back as it was, running, and uses its saved memory up. What was changed of its CPUs or memory meanwhile takes effect when it is stopped and started. A VM that runs already is left alone; one that is off has nothing to be restored from: start it. Sets `spec.runPolicy` to `running`.",
  body: z.strictObject({}).meta({ id: "RestoreVmBody" }),
  input: VmInput,
  inputOf: (vmId) => ({ vmId }),
  capability: "save",
  runPolicy: "running",
  deadlineSeconds: MEMORY_LIMIT_SECONDS + 900,
  steps: [
    step<VmInput, Found>({
      name: "restore-domain",
      host: vmHost,
      timeoutSeconds: MEMORY_LIMIT_SECONDS,
      find: async (context) => ({ power: (await observeForCertain(context))?.power ?? null }),
      async run(context) {
        const { found } = context;
        if (found?.power !== "saved" && found?.power !== "running") {
          throw new DroverError(
            "invalid_state",
            "The host keeps no memory of the VM any more, so there is nothing to restore. Start it.",
          );
        }
        if (found.power === "saved")
          await hostOf(context).startDomain(context.operation.input.vmId, context.call);
        // It looks itself, behind the start.
        return await look(context);
      },
      write: writeSeen,
      async undo(context) {
        if (context.found?.power === "saved") await switchOffAgain(context, true);
      },
    }),
  ],
});
