import type { Sql, Tx } from "../db/client.ts";
import { exclusionViolation, uniqueViolation } from "../db/database-errors.ts";
import type { KeysetField } from "../db/keyset.ts";
import { appendEvent } from "../events/event-store.ts";
import type { ProjectRef } from "../http/auth.ts";
import { type IfMatch, requireMatch } from "../http/etag.ts";
import { type LabelRequirement, Labels, patchLabels } from "../http/labels.ts";
import { type PageRequest, pageWindow, parseOrderBy, toPage } from "../http/pagination.ts";
import { DroverError } from "../lib/errors.ts";
import { type NetworkId, newId } from "../lib/ids.ts";
import { formatIpv4, formatIpv6, parseSubnet } from "../lib/ip-address.ts";
import { hostAddresses } from "./ipam.ts";
import type { NetworkIpv4, NetworkIpv6, NetworkRecord, NetworkUse } from "./network-record.ts";
import type { CreateNetwork, Network, PatchNetwork } from "./network-schemas.ts";
import {
  findNetwork,
  insertNetwork,
  listNetworks,
  lockNetwork,
  type NetworkFilter,
  updateNetworkLabels,
  usesOf,
} from "./network-store.ts";
import { networkEvent, viewOfNetwork } from "./network-view.ts";

const UNUSED: NetworkUse = { hosts: [], addresses: 0 };

/** Writes a network down; no host has it yet. Throws `name_taken`, and `conflict` for a subnet that is in use. */
export async function createNetwork(tx: Tx, project: ProjectRef, body: CreateNetwork): Promise<Network> {
  const { name, labels, kind, bridge, vlan, hostLabels } = body;
  const row = await insertNetwork(tx, {
    ...{ id: newId<NetworkId>(), projectId: project.id, name, labels, kind },
    ipv4: body.ipv4 === undefined ? null : ipv4Of(kind, body.ipv4),
    ipv6: body.ipv6 === undefined ? null : ipv6Of(body.ipv6),
    ...{ bridge: bridge ?? null, vlan: vlan ?? null, hostLabels: hostLabels ?? null },
  }).catch((error: unknown) => {
    throw refusalOf(error, name);
  });
  await appendEvent(tx, networkEvent("network.created", row));
  return viewOfNetwork(row, project.name, UNUSED);
}

/** The addresses with what was left open filled in. */
function ipv4Of(kind: CreateNetwork["kind"], given: NonNullable<CreateNetwork["ipv4"]>): NetworkIpv4 {
  const subnet = parseSubnet(given.cidr);
  if (subnet === null) throw new Error(`${given.cidr} passed its schema and is no subnet`);
  const hosts = hostAddresses(subnet);
  const first = formatIpv4(hosts.first);
  return {
    cidr: given.cidr,
    gateway: given.gateway ?? (kind === "bridged" ? null : first),
    range: given.range ?? { start: first, end: formatIpv4(hosts.last) },
  };
}

function ipv6Of({ cidr }: NonNullable<CreateNetwork["ipv6"]>): NetworkIpv6 {
  const subnet = parseSubnet(cidr);
  if (subnet === null) throw new Error(`${cidr} passed its schema and is no subnet`);
  return { cidr: `${formatIpv6(subnet.first)}/${subnet.prefix}`, gateway: formatIpv6(subnet.first + 1n) };
}

function refusalOf(error: unknown, name: string): unknown {
  if (uniqueViolation(error) !== null) {
    const message = `There is a network "${name}" already. Choose another name, or delete that network first.`;
    return new DroverError("name_taken", message, { cause: error });
  }
  if (exclusionViolation(error) === null) return error;
  return new DroverError(
    "conflict",
    "The subnet overlaps that of another network of this installation, and a host may have both. Choose another one.",
    { cause: error },
  );
}

/** Throws `not_found`. */
export async function readNetwork(db: Sql, project: ProjectRef, idOrName: string): Promise<Network> {
  const row = await findNetwork(db, project.id, idOrName);
  if (row === null) throw noNetwork(idOrName);
  return await viewNetwork(db, project, row);
}

export async function viewNetwork(db: Sql, project: ProjectRef, row: NetworkRecord): Promise<Network> {
  return viewOfNetwork(row, project.name, (await usesOf(db, [row.id])).get(row.id) ?? UNUSED);
}

export interface ListRequest extends PageRequest {
  readonly name?: NetworkFilter["name"];
  readonly kind?: NetworkFilter["kind"];
  readonly labelSelector?: readonly LabelRequirement[] | undefined;
  readonly orderBy: KeysetField | `-${KeysetField}`;
}

export async function pageOfNetworks(
  db: Sql,
  project: ProjectRef,
  request: ListRequest,
): Promise<{ items: Network[]; nextPageToken?: string }> {
  const { name, kind, labelSelector: labels, orderBy } = request;
  const filter = { name, kind, labels };
  const binding = { list: `networks/${project.id}`, orderBy, filters: filter };
  const { after, limit } = pageWindow(binding, request);
  const order = parseOrderBy<KeysetField>(orderBy);
  const from = after === null ? null : { value: String(after.value), id: after.id };
  const rows = await listNetworks(db, project.id, filter, order, { after: from, limit });
  const uses = await usesOf(
    db,
    rows.map(({ id }) => id),
  );
  return toPage(
    binding,
    request,
    rows,
    (row) => ({ value: order.field === "name" ? row.name : row.createdAt.toISOString(), id: row.id }),
    (row) => viewOfNetwork(row, project.name, uses.get(row.id) ?? UNUSED),
  );
}

/** Changes labels. Throws `not_found`, `precondition_failed`, `invalid_request` for too many labels. */
export async function patchNetwork(
  tx: Tx,
  project: ProjectRef,
  idOrName: string,
  patch: PatchNetwork,
  ifMatch: IfMatch | null,
): Promise<Network> {
  const row = await lockNetwork(tx, project.id, idOrName);
  if (row === null) throw noNetwork(idOrName);
  requireMatch(ifMatch, row.generation);
  if (patch.labels === undefined || Object.keys(patch.labels).length === 0)
    return await viewNetwork(tx, project, row);
  const labels = Labels.safeParse(patchLabels(row.labels, patch.labels));
  if (!labels.success) {
    const message = labels.error.issues[0]?.message ?? "not valid";
    throw new DroverError("invalid_request", `The request is not valid: /labels: ${message}.`, {
      violations: [{ pointer: "/labels", message }],
    });
  }
  const changed = await updateNetworkLabels(tx, row.id, labels.data);
  await appendEvent(tx, networkEvent("network.updated", changed));
  return await viewNetwork(tx, project, changed);
}

export function noNetwork(idOrName: string): DroverError {
  return new DroverError(
    "not_found",
    `There is no network "${idOrName}" in this project. List them with GET /v1/networks.`,
  );
}
