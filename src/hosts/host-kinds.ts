import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import type { Tx } from "../db/transaction.ts";
import { asId, type HostId, type InstallationId } from "../lib/ids.ts";
import {
  type AnyOperationKind,
  anyKind,
  type OperationKind,
  type StepContext,
  step,
} from "../operations/operation-kind.ts";
import { ABSENCE_MS } from "./absence.ts";
import { checked, HostFactsSchema, HostInventorySchema } from "./host-facts.ts";
import { recordFacts, recordInventory } from "./host-observation-store.ts";
import { getHost } from "./host-store.ts";
import type { ObservationSink } from "./observation-sink.ts";

const HostInput = z.object({ hostId: z.guid().transform((id) => asId<HostId>(id)) });
type HostInput = z.output<typeof HostInput>;
type Nothing = Record<string, never>;

export interface HostKindDeps {
  readonly installationId: InstallationId;
  readonly sink: ObservationSink;
}

/** Operations on hosts. They change nothing on the host: they look at it, now, and record what they saw. */
export function hostKinds(deps: HostKindDeps): readonly AnyOperationKind[] {
  const look = { steps: [probeStep(), inventoryStep(deps)], input: HostInput, admit: admitKnown };
  const register: OperationKind<HostInput> = { name: "host.register", deadlineSeconds: 120, ...look };
  const refresh: OperationKind<HostInput> = { name: "host.refresh", deadlineSeconds: 120, ...look };
  return [anyKind(register), anyKind(refresh)];
}

const hostItself = (_tx: Tx, { hostId }: HostInput) => Promise.resolve(hostId);

/** A host that was deleted meanwhile has nothing to be looked at. */
async function admitKnown(tx: Tx, operation: { readonly input: HostInput }) {
  const host = await getHost(tx, operation.input.hostId);
  return { kind: host === null ? "done" : "run" } as const;
}

function connectionOf(context: StepContext<HostInput>) {
  if (context.host === null) throw new Error(`a step of ${context.operation.kind} has no host`);
  return context.host;
}

function probeStep() {
  return step<HostInput, Nothing>({
    name: "probe",
    host: hostItself,
    async run(context) {
      const facts = checked(HostFactsSchema, await connectionOf(context).probe(context.call), "facts");
      await context.transaction((tx) => recordFacts(tx, context.operation.input.hostId, facts));
      return { hypervisorVersion: facts.hypervisorVersion, toolstackVersion: facts.toolstackVersion };
    },
  });
}

function inventoryStep(deps: HostKindDeps) {
  return step<HostInput, Nothing>({
    name: "inventory",
    host: hostItself,
    async run(context) {
      const first = await takeInventory(deps, context, []);
      if (first.missed.length === 0) return first.counts;
      // What was not seen once may be on its way through a reboot: a second look proves it.
      await sleep(ABSENCE_MS, undefined, { signal: context.signal });
      return (await takeInventory(deps, context, first.missed)).counts;
    },
  });
}

async function takeInventory(
  { installationId, sink }: HostKindDeps,
  context: StepContext<HostInput>,
  proven: readonly string[],
) {
  const { hostId } = context.operation.input;
  const observedAt = new Date();
  const answer = await connectionOf(context).inventory(context.call);
  const inventory = checked(HostInventorySchema, answer, "an inventory");
  const missed = await context.transaction(async (tx) => {
    const { recorded } = await recordInventory(tx, hostId, inventory, installationId, observedAt);
    return recorded ? await sink.inventory(tx, hostId, inventory, observedAt, proven) : [];
  });
  const { domains, networks, pools } = inventory;
  return { missed, counts: { domains: domains.length, networks: networks.length, pools: pools.length } };
}
