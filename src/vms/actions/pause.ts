import { z } from "zod";
import { HypervisorError } from "../../hypervisors/hypervisor.ts";
import { type StepContext, step } from "../../operations/operation-kind.ts";
import { defineVmAction } from "../vm-action.ts";
import { hostOf, observe, observeForCertain, observeStep, VmInput, vmHost } from "../vm-steps.ts";

type Found = { wasPaused: boolean };

function abilityOf(context: StepContext<VmInput>) {
  const { pause: ability } = hostOf(context);
  if (ability === undefined) throw new HypervisorError("unsupported", "the host cannot pause a guest");
  return ability;
}

async function findPaused(context: StepContext<VmInput>): Promise<Found> {
  return { wasPaused: (await observeForCertain(context))?.power === "paused" };
}

/** Stops a VM's CPUs; its memory stays. A paused one is left alone. */
export const pause = defineVmAction({
  name: "pause",
  summary: "Pause a VM",
  description: "Stops the VM's CPUs where they are. Its memory stays on the host.",
  body: z.strictObject({}).meta({ id: "PauseVmBody" }),
  input: VmInput,
  inputOf: (vmId) => ({ vmId }),
  capability: "pause",
  deadlineSeconds: 900,
  steps: [
    step<VmInput, Found>({
      name: "pause-domain",
      host: vmHost,
      find: findPaused,
      async run(context) {
        await abilityOf(context).pauseDomain(context.operation.input.vmId, context.call);
        return undefined;
      },
      async undo(context) {
        if (context.found?.wasPaused !== false || (await observe(context))?.power !== "paused") return;
        await abilityOf(context).resumeDomain(context.operation.input.vmId, context.call);
      },
    }),
    observeStep<VmInput>(),
  ],
});

/** Lets a paused VM go on. A running one is left alone. */
export const resume = defineVmAction({
  name: "resume",
  summary: "Resume a VM",
  description: "Lets a paused VM go on where it was.",
  body: z.strictObject({}).meta({ id: "ResumeVmBody" }),
  input: VmInput,
  inputOf: (vmId) => ({ vmId }),
  capability: "pause",
  deadlineSeconds: 900,
  steps: [
    step<VmInput, Found>({
      name: "resume-domain",
      host: vmHost,
      find: findPaused,
      async run(context) {
        await abilityOf(context).resumeDomain(context.operation.input.vmId, context.call);
        return undefined;
      },
      async undo(context) {
        if (context.found?.wasPaused !== true || (await observe(context))?.power !== "running") return;
        await abilityOf(context).pauseDomain(context.operation.input.vmId, context.call);
      },
    }),
    observeStep<VmInput>(),
  ],
});
