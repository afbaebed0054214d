import { z } from "zod";
import type { HostConnection } from "../../hypervisors/hypervisor.ts";
import { DroverError } from "../../lib/errors.ts";
import { type StepContext, step } from "../../operations/operation-kind.ts";
import { defineVmAction } from "../vm-action.ts";
import {
  cutPower,
  hostOf,
  isOn,
  observe,
  observeForCertain,
  observeStep,
  VmInput,
  vmHost,
} from "../vm-steps.ts";

const StopVmBody = z
  .strictObject({
    mode: z.enum(["graceful", "force"]).default("graceful").meta({
      description:
        "`graceful` asks the guest to power off; `force` cuts the power at once and overtakes what is queued.",
    }),
    timeoutSeconds: z
      .int()
      .min(1)
      .max(3600)
      .default(60)
      .meta({ description: "How long a graceful stop waits for the guest." }),
    forceAfterTimeout: z.boolean().default(true).meta({
      description:
        "After the time-out: true cuts the power, false ends the operation as `guest_did_not_stop`.",
    }),
  })
  .meta({ id: "StopVmBody" });

const StopInput = VmInput.extend({
  force: z.boolean(),
  timeoutSeconds: z.number(),
  forceAfterTimeout: z.boolean(),
});
type StopInput = z.output<typeof StopInput>;

/** Stops a VM: asks the guest, waits, then cuts the power; or cuts it at once. A stopped one is left alone. */
export const stop = defineVmAction({
  name: "stop",
  summary: "Stop a VM",
  description:
    "Asks the guest to power off and waits; when the time is over, cuts the power. With `mode: force` the power is cut at once, and operations queued before are cancelled. A saved VM is left saved, unless by `mode: force`: that throws its memory away. Sets `spec.runPolicy` to `stopped`.",
  body: StopVmBody,
  input: StopInput,
  inputOf: (vmId, { mode, timeoutSeconds, forceAfterTimeout }) => ({
    vmId,
    force: mode === "force",
    timeoutSeconds,
    forceAfterTimeout,
  }),
  capability: "stop",
  runPolicy: "stopped",
  // A graceful stop can be given up, such as for a forced one: it waits for a guest that may never end.
  forwardOnly: ({ force }) => force,
  overtakes: ({ force }) => force,
  deadlineSeconds: ({ timeoutSeconds }) => timeoutSeconds + 900,
  steps: [
    step<StopInput, Record<string, never>>({
      name: "shut-down-guest",
      host: vmHost,
      skip: ({ force }) => force,
      timeoutSeconds: ({ timeoutSeconds }) => timeoutSeconds + 60,
      run: async (context) => ({ stopped: await shutDown(context) }),
    }),
    step<StopInput, Record<string, never>>({
      name: "force-off",
      host: vmHost,
      async run(context) {
        const { force, forceAfterTimeout, timeoutSeconds } = context.operation.input;
        if (force || forceAfterTimeout) await cutPower(context, { memory: force });
        else if (isOn((await observe(context))?.power)) {
          throw new DroverError(
            "guest_did_not_stop",
            `The guest did not power off within ${timeoutSeconds} seconds. Stop it with mode "force", or look at its console log.`,
          );
        }
        return undefined;
      },
    }),
    observeStep<StopInput>(),
  ],
});

// A guest that is still booting misses the first request.
const ASK_AGAIN_MS = 10_000;
const LOOK_EVERY_MS = 1_000;

/** Asks the guest to power off until it did or the time is over. True: it is off. */
async function shutDown(context: StepContext<StopInput>): Promise<boolean> {
  const { vmId, timeoutSeconds } = context.operation.input;
  const host = hostOf(context);
  const endsAt = performance.now() + timeoutSeconds * 1000;
  const changes = watchDomain(host, vmId);
  try {
    let askedAt = Number.NEGATIVE_INFINITY;
    for (;;) {
      if (!isOn((await observeForCertain(context))?.power)) return true;
      const now = performance.now();
      if (now >= endsAt) return false;
      if (now - askedAt >= ASK_AGAIN_MS) {
        await host.requestShutdown(vmId, context.call);
        askedAt = performance.now();
      }
      await changes.next(Math.min(LOOK_EVERY_MS, endsAt - now), context.signal);
    }
  } finally {
    changes.end();
  }
}

/** Waits for the host to tell of a change of one domain, so that the end of a guest is seen at once. */
function watchDomain(host: HostConnection, uuid: string) {
  let wake: () => void = () => undefined;
  let changed = false;
  const end = host.watch((event) => {
    if (event.kind === "domain-changed" && event.uuid !== uuid) return;
    changed = true;
    wake();
  });
  return {
    end,
    /** Resolves at a change since the last call, or when the time is over; rejects when the signal aborts. */
    async next(milliseconds: number, signal: AbortSignal): Promise<void> {
      signal.throwIfAborted();
      if (!changed) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, milliseconds);
          wake = () => {
            clearTimeout(timer);
            resolve();
          };
          signal.addEventListener("abort", wake, { once: true });
        });
        signal.removeEventListener("abort", wake);
        signal.throwIfAborted();
      }
      changed = false;
    },
  };
}
