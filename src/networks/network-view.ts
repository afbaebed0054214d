import type { NewEvent } from "../events/event-store.ts";
import { timestamp } from "../http/schemas.ts";
import type { OperationId } from "../lib/ids.ts";
import type { NetworkRecord, NetworkUse } from "./network-record.ts";
import type { Network } from "./network-schemas.ts";

/** A network as the API shows it. */
export function viewOfNetwork(row: NetworkRecord, projectName: string, use: NetworkUse): Network {
  return {
    id: row.id,
    name: row.name,
    project: projectName,
    labels: { ...row.labels },
    generation: row.generation,
    createdAt: timestamp(row.createdAt),
    updatedAt: timestamp(row.updatedAt),
    kind: row.kind,
    ipv4: row.ipv4 === null ? null : { ...row.ipv4, range: { ...row.ipv4.range } },
    ipv6: row.ipv6 === null ? null : { ...row.ipv6 },
    bridge: row.bridge,
    vlan: row.vlan,
    hostLabels: row.hostLabels === null ? null : { ...row.hostLabels },
    state: row.state,
    hosts: use.hosts.map(({ name }) => name),
    addressesReserved: use.addresses,
  };
}

/** The event of a change to a network. */
export function networkEvent(
  type: "network.created" | "network.updated" | "network.deleting" | "network.deleted",
  { id, name, projectId, kind }: NetworkRecord,
  operationId: OperationId | null = null,
): NewEvent {
  return { type, subject: { kind: "network", id, name }, projectId, operationId, data: { kind } };
}
