import { z } from "zod";
import { HypervisorError, type ObservedPower } from "../../hypervisors/hypervisor.ts";
import { type StepContext, step } from "../../operations/operation-kind.ts";
import { defineVmAction } from "../vm-action.ts";
import {
  hostOf,
  isOn,
  MEMORY_LIMIT_SECONDS,
  observe,
  observeForCertain,
  observeStep,
  VmInput,
  vmHost,
} from "../vm-steps.ts";

type Found = { power: ObservedPower | null };

/** Writes a VM's memory to its host's disk and switches it off. A saved one is left alone. */
export const save = defineVmAction({
  name: "save",
  summary: "Save a VM",
  description:
    "Writes the memory of a running or paused VM to its host's disk and switches it off: its power is `saved`. Restore, or start, brings it back as it was, running. It keeps its place on the host. A forced stop or a delete throws the memory away; a graceful stop leaves it. Sets `spec.runPolicy` to `stopped`. When it fails or is cancelled, the VM goes on as it was.",
  body: z.strictObject({}).meta({ id: "SaveVmBody" }),
  input: VmInput,
  inputOf: (vmId) => ({ vmId }),
  capability: "save",
  runPolicy: "stopped",
  deadlineSeconds: MEMORY_LIMIT_SECONDS + 900,
  steps: [
    step<VmInput, Found>({
      name: "save-domain",
      host: vmHost,
      timeoutSeconds: MEMORY_LIMIT_SECONDS,
      find: async (context) => ({ power: (await observeForCertain(context))?.power ?? null }),
      async run(context) {
        await saveMemory(context);
        return undefined;
      },
      async undo(context) {
        if (isOn(context.found?.power)) await goOn(context, context.found?.power === "paused");
      },
    }),
    observeStep<VmInput>(),
  ],
});

/** Has the host keep the guest's memory. */
export async function saveMemory(context: StepContext<VmInput>): Promise<void> {
  const { saveDomain } = hostOf(context);
  if (saveDomain === undefined) throw new HypervisorError("unsupported", "the host cannot save a guest");
  await saveDomain(context.operation.input.vmId, context.call);
}

/** Brings a guest back that was on: what is being saved still is given up, or waited for, by the start. */
async function goOn(context: StepContext<VmInput>, wasPaused: boolean): Promise<void> {
  const host = hostOf(context);
  const { vmId } = context.operation.input;
  const power = (await observe(context))?.power;
  // Somebody else has switched it off, so it is not for us to switch it on.
  if (power !== "saved" && !isOn(power)) return;
  await host.startDomain(vmId, context.call);
  const isPaused = (await observe(context))?.power === "paused";
  if (isPaused === wasPaused) return;
  await host.pause?.[wasPaused ? "pauseDomain" : "resumeDomain"](vmId, context.call);
}
