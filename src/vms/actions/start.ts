import { z } from "zod";
import type { JsonObject } from "../../lib/json.ts";
import { type StepContext, step } from "../../operations/operation-kind.ts";
import { defineVmAction } from "../vm-action.ts";
import { recordApplied } from "../vm-observation-store.ts";
import {
  answeredSoon,
  hostOf,
  isOn,
  look,
  observe,
  observeForCertain,
  readDomainSpec,
  sizeOf,
  VmInput,
  vmHost,
  writeSeen,
} from "../vm-steps.ts";
import { saveMemory } from "./save.ts";

// Long enough to read the memory of most saved guests. What is not saved starts within a usual call's time.
const START_LIMIT_SECONDS = 900;

/** Starts a stopped VM. Starting a running one succeeds and changes nothing. */
export const start = defineVmAction({
  name: "start",
  summary: "Start a VM",
  description:
    "Starts a VM that is off or crashed, with its spec as it is now; one that is saved comes back as it was, running. Where that may last longer than 15 minutes, use restore. A VM that runs already is left alone. Sets `spec.runPolicy` to `running`.",
  body: z.strictObject({}).meta({ id: "StartVmBody" }),
  input: VmInput,
  inputOf: (vmId) => ({ vmId }),
  capability: "start",
  runPolicy: "running",
  deadlineSeconds: START_LIMIT_SECONDS,
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
  return step<VmInput, { wasOn: boolean; wasSaved: boolean; wasDefined: boolean }>({
    name: "start-domain",
    host: vmHost,
    timeoutSeconds: START_LIMIT_SECONDS,
    async find(context) {
      const domain = await observeForCertain(context);
      const wasSaved = domain?.power === "saved";
      return { wasOn: isOn(domain?.power), wasSaved, wasDefined: domain !== null };
    },
    async run(context) {
      const { found } = context;
      if (found?.wasOn === true) return await look(context);
      if (found?.wasSaved !== true) return await bringUp(answeredSoon(context), found?.wasDefined === true);
      // As it was: a definition that was changed since takes effect at its next start.
      await hostOf(context).startDomain(context.operation.input.vmId, context.call);
      return await look(context);
    },
    write: writeSeen,
    async undo(context) {
      if (context.found === null || context.found.wasOn) return;
      await switchOffAgain(context, context.found.wasSaved);
    },
  });
}

/** Takes a start back; one of a saved guest by saving it again, for its memory is not ours to throw away. */
export async function switchOffAgain(context: StepContext<VmInput>, wasSaved: boolean): Promise<void> {
  if (!isOn((await observe(context))?.power)) return;
  if (wasSaved) await saveMemory(context);
  else await hostOf(context).forceOffDomain(context.operation.input.vmId, answeredSoon(context).call);
}
