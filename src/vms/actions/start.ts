import { z } from "zod";
import { step } from "../../operations/operation-kind.ts";
import { defineVmAction } from "../vm-action.ts";
import { recordApplied } from "../vm-observation-store.ts";
import {
  hostOf,
  isOn,
  look,
  observe,
  observeStep,
  readDomainSpec,
  sizeOf,
  VmInput,
  vmHost,
  writeSeen,
} from "../vm-steps.ts";

/** Starts a stopped VM. Starting a running one succeeds and changes nothing. */
export const start = defineVmAction({
  name: "start",
  summary: "Start a VM",
  description:
    "Starts a VM that is off, saved or crashed, with its spec as it is now. A VM that runs already is left alone. Sets `spec.runPolicy` to `running`.",
  body: z.strictObject({}).meta({ id: "StartVmBody" }),
  input: VmInput,
  inputOf: (vmId) => ({ vmId }),
  capability: "start",
  runPolicy: "running",
  deadlineSeconds: 900,
  steps: [startStep<VmInput>(), observeStep<VmInput>()],
});

/** Defines the domain anew where it is missing or older than the spec, then starts it. Its undo stops what it started. */
export function startStep<Input extends VmInput>(
  options: { readonly skip?: (input: Input) => boolean } = {},
) {
  return step<Input, { wasOn: boolean; wasDefined: boolean }>({
    name: "start-domain",
    host: vmHost,
    ...options,
    async find(context) {
      const domain = await observe(context);
      return { wasOn: isOn(domain?.power), wasDefined: domain !== null };
    },
    async run(context) {
      const { found, call } = context;
      const host = hostOf(context);
      if (found?.wasOn === true) return await look(context);
      const { vm, spec } = await readDomainSpec(context);
      if (found?.wasDefined !== true || vm.observedGeneration !== vm.generation) {
        await host.defineDomain(spec, call);
        await context.transaction((tx) => recordApplied(tx, vm.id, sizeOf(vm)));
      }
      await host.startDomain(spec.uuid, call);
      return await look(context);
    },
    write: writeSeen,
    async undo(context) {
      if (context.found === null || context.found.wasOn) return;
      if (isOn((await observe(context))?.power)) {
        await hostOf(context).forceOffDomain(context.operation.input.vmId, context.call);
      }
    },
  });
}
