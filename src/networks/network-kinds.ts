import { z } from "zod";
import { appendEvent } from "../events/event-store.ts";
import { DroverError } from "../lib/errors.ts";
import { asId, type HostId, type NetworkId } from "../lib/ids.ts";
import { type AnyOperationKind, anyKind, type OperationKind, step } from "../operations/operation-kind.ts";
import {
  deleteNetworkRow,
  getNetwork,
  removeFromHostIfUnused,
  setNetworkState,
  usesOf,
} from "./network-store.ts";
import { networkEvent } from "./network-view.ts";

const guid = z.guid();
const WithdrawInput = z.object({
  networkId: guid.transform((id) => asId<NetworkId>(id)),
  hostId: guid.transform((id) => asId<HostId>(id)),
});
type WithdrawInput = z.output<typeof WithdrawInput>;
const DeleteInput = z.object({ networkId: guid.transform((id) => asId<NetworkId>(id)) });
type DeleteInput = z.output<typeof DeleteInput>;
type Nothing = Record<string, never>;

/** Takes a network off one host. It only goes forward: what is half taken away is of no use. */
export const networkWithdrawKind: OperationKind<WithdrawInput> = {
  name: "network.withdraw",
  input: WithdrawInput,
  deadlineSeconds: 86_400,
  forwardOnly: true,
  steps: [
    step<WithdrawInput, Nothing>({
      name: "remove-network",
      host: (_tx, { hostId }) => Promise.resolve(hostId),
      async run({ host, operation, call }) {
        await host?.networks?.removeNetwork(operation.input.networkId, call);
        return undefined;
      },
    }),
  ],
  async onEnd(tx, { input }, outcome) {
    if (outcome.state === "succeeded") await removeFromHostIfUnused(tx, input.networkId, input.hostId);
  },
};

/** Forgets a network, once those operations have ended that take it off its hosts. */
export const networkDeleteKind: OperationKind<DeleteInput> = {
  name: "network.delete",
  input: DeleteInput,
  deadlineSeconds: 86_400,
  steps: [
    step<DeleteInput, Nothing>({
      name: "see-it-gone",
      async run(context) {
        const { networkId } = context.operation.input;
        const use = (await context.read((db) => usesOf(db, [networkId]))).get(networkId);
        const left = use?.hosts.map(({ name }) => name) ?? [];
        if (left.length > 0) throw stillThere(left);
        return undefined;
      },
    }),
  ],
  async admit(tx, { input }) {
    return { kind: (await getNetwork(tx, input.networkId)) === null ? "done" : "run" };
  },
  async onEnd(tx, { id, input }, outcome) {
    const network = await getNetwork(tx, input.networkId);
    if (network === null) return;
    if (outcome.state !== "succeeded") {
      await setNetworkState(tx, network.id, "ready");
      return;
    }
    await deleteNetworkRow(tx, network.id);
    await appendEvent(tx, networkEvent("network.deleted", network, id));
  },
};

function stillThere(hosts: readonly string[]): DroverError {
  return new DroverError(
    "conflict",
    `The network could not be taken off ${hosts.join(", ")}: see the operations network.withdraw. Then delete it again.`,
    { details: { hosts } },
  );
}

/** Operations on networks. */
export function networkKinds(): readonly AnyOperationKind[] {
  return [anyKind(networkWithdrawKind), anyKind(networkDeleteKind)];
}
