import { z } from "zod";
import { HypervisorError } from "../../hypervisors/hypervisor.ts";
import { step } from "../../operations/operation-kind.ts";
import { defineVmAction } from "../vm-action.ts";
import { hostOf, observeStep, VmInput, vmHost } from "../vm-steps.ts";

/** Restarts the machine as its reset button does. */
export const reset = defineVmAction({
  name: "reset",
  summary: "Reset a VM",
  description: "Restarts the machine at once, as its reset button does, whatever the guest is doing.",
  body: z.strictObject({}).meta({ id: "ResetVmBody" }),
  input: VmInput,
  inputOf: (vmId) => ({ vmId }),
  capability: "reset",
  deadlineSeconds: 900,
  steps: [
    step<VmInput, Record<string, never>>({
      name: "reset-domain",
      host: vmHost,
      async run(context) {
        const host = hostOf(context);
        if (host.resetDomain === undefined)
          throw new HypervisorError("unsupported", "the host cannot reset a guest");
        await host.resetDomain(context.operation.input.vmId, context.call);
        return undefined;
      },
    }),
    observeStep<VmInput>(),
  ],
});
