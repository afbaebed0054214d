import { z } from "zod";
import { HypervisorError } from "../../hypervisors/hypervisor.ts";
import { step } from "../../operations/operation-kind.ts";
import { defineVmAction } from "../vm-action.ts";
import { hostOf, observeStep, VmInput, vmHost } from "../vm-steps.ts";

/** Asks the guest to restart by itself. */
export const reboot = defineVmAction({
  name: "reboot",
  summary: "Reboot a VM",
  description:
    "Asks the guest to restart by itself. The operation ends when the guest was asked: one that ignores it goes on as it was; use reset then.",
  body: z.strictObject({}).meta({ id: "RebootVmBody" }),
  input: VmInput,
  inputOf: (vmId) => ({ vmId }),
  capability: "reboot",
  runPolicy: "running",
  deadlineSeconds: 900,
  steps: [
    step<VmInput, Record<string, never>>({
      name: "ask-guest",
      host: vmHost,
      async run(context) {
        const host = hostOf(context);
        if (host.rebootDomain === undefined)
          throw new HypervisorError("unsupported", "the host cannot reboot a guest");
        await host.rebootDomain(context.operation.input.vmId, context.call);
        return undefined;
      },
    }),
    observeStep<VmInput>(),
  ],
});
