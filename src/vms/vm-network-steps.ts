import { hasOwnDhcp, networkSpecOf } from "../networks/network-on-host.ts";
import type { StepContext } from "../operations/operation-kind.ts";
import { type ManagedNic, managedNicsOf } from "./vm-nic-store.ts";
import { hostOf, type VmInput } from "./vm-steps.ts";

/** The part of a VM's operations that is about its networks on the host. */

/**
 * Makes the networks of the project that the VM's NICs are in, where the host does not have them, and has their DHCP
 * give the NICs their addresses. A host without the ability has bridges, on which nothing is to be made.
 */
export async function prepareNetworks(
  context: StepContext<VmInput>,
  chosen: (nic: ManagedNic) => boolean = () => true,
): Promise<void> {
  const { networks } = hostOf(context);
  if (networks === undefined) return;
  const { vmId } = context.operation.input;
  const nics = await context.read((db) => managedNicsOf(db, vmId));
  const made = new Set<string>();
  for (const { network, macAddress, ipv4Address, installationId } of nics.filter(chosen)) {
    if (!made.has(network.id)) {
      await networks.ensureNetwork(networkSpecOf(network, installationId), context.call);
      made.add(network.id);
    }
    if (ipv4Address === null || !hasOwnDhcp(network)) continue;
    await networks.reserveAddress(network.id, { macAddress, ipv4Address }, context.call);
  }
}

/**
 * Takes back what the host's DHCP gives to the VM's NICs. The networks stay: another VM may have begun to use them, and
 * which hosts have them is written down.
 */
export async function releaseNetworks(
  context: StepContext<VmInput>,
  chosen: (nic: ManagedNic) => boolean = () => true,
): Promise<void> {
  const { networks } = hostOf(context);
  if (networks === undefined) return;
  const { vmId } = context.operation.input;
  const nics = await context.read((db) => managedNicsOf(db, vmId));
  for (const { network, macAddress } of nics.filter(chosen)) {
    if (hasOwnDhcp(network)) await networks.releaseAddress(network.id, macAddress, context.call);
  }
}
