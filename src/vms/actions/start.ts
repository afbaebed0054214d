import { z } from "zod";
import type { JsonObject } from "../../lib/json.ts";
import { type StepContext, step } from "../../operations/operation-kind.ts";
import { defineVmAction } from "../vm-action.ts";
import { recordApplied } from "../vm-observation-store.ts";
import {
  hostOf,
  isOn,
  look,
  observe,
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
  // It looks itself, behind the start.
  steps: [startStep()],
});

/** Starts a domain that is off; defines it before where it is missing or older than the spec. Looks at it in the end. */
export async function bringUp(context: StepContext<VmInput>, isDefined: boolean): Promise<JsonObject> {
  const host = hostOf(context);
  const { vm, spec } = await readDomainSpec(context);
  if (!isDefined || vm.observedGeneration !== vm.generation) {
    await host.defineDomain(spec, context.call);
    await context.transaction((tx) => recordApplied(tx, vm.id, sizeOf(vm)));
  }
  await host.startDomain(spec.uuid, context.call);
  return await look(context);
}

/** Its undo stops what it started. */
function startStep() {
  return step<VmInput, { wasOn: boolean; wasDefined: boolean }>({
    name: "start-domain",
    host: vmHost,
    async find(context) {
      const domain = await observe(context);
      return { wasOn: isOn(domain?.power), wasDefined: domain !== null };
    },
    async run(context) {
      if (context.found?.wasOn === true) return await look(context);
      return await bringUp(context, context.found?.wasDefined === true);
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
