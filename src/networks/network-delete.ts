import type { Tx } from "../db/client.ts";
import { appendEvent } from "../events/event-store.ts";
import type { ProjectRef } from "../http/auth.ts";
import { type IfMatch, requireMatch } from "../http/etag.ts";
import { DroverError } from "../lib/errors.ts";
import type { HostId, OperationId } from "../lib/ids.ts";
import type { KindRegistry } from "../operations/operation-kinds.ts";
import { lockSubjects } from "../operations/operation-lanes.ts";
import { enqueue, unfinishedOperations } from "../operations/operation-queue.ts";
import { networkDeleteKind, networkWithdrawKind } from "./network-kinds.ts";
import type { NetworkRecord } from "./network-record.ts";
import type { Network } from "./network-schemas.ts";
import { noNetwork, viewNetwork } from "./network-service.ts";
import { findNetwork, lockNetwork, setNetworkState, usesOf, vmsUsingNetwork } from "./network-store.ts";
import { networkEvent } from "./network-view.ts";

/** Who asks, and where. */
export interface NetworkRequest {
  readonly project: ProjectRef;
  readonly actor: string;
  readonly requestId: string;
}

interface Queued {
  readonly network: Network;
  readonly operationId: OperationId;
}

/**
 * Takes a network off all of its hosts and then out of the inventory; a second delete joins the first. Each host has
 * its own operation, which the last one waits for. Throws `not_found`, `precondition_failed`, `in_use`.
 */
export async function deleteNetwork(
  tx: Tx,
  kinds: KindRegistry,
  request: NetworkRequest,
  idOrName: string,
  ifMatch: IfMatch | null,
): Promise<Queued> {
  const { project, actor, requestId } = request;
  const row = await lockWithLane(tx, project, idOrName);
  requireMatch(ifMatch, row.generation);
  const under = await unfinishedOperations(tx, { kind: "network", id: row.id });
  const running = under.find(({ kind }) => kind === networkDeleteKind.name);
  if (running !== undefined) return { network: await viewNetwork(tx, project, row), operationId: running.id };
  await requireUnused(tx, row, null);
  const hosts = (await usesOf(tx, [row.id])).get(row.id)?.hosts ?? [];
  const about = {
    ...{ projectId: project.id, actor, requestId },
    targets: [{ kind: "network", id: row.id, name: row.name } as const],
  };
  // Nobody can put it on a host from here on, so they need not wait for one another.
  for (const host of hosts) await enqueue(tx, withdrawal(about, row, host, "shared"), kinds);
  const operation = await enqueue(
    tx,
    {
      ...about,
      kind: networkDeleteKind,
      input: { networkId: row.id },
      subjects: [{ kind: "network", id: row.id, mode: "exclusive" }],
      hosts: hosts.map(({ name }) => name),
    },
    kinds,
  );
  const deleting = await setNetworkState(tx, row.id, "deleting");
  await appendEvent(tx, networkEvent("network.deleting", deleting, operation.id));
  return { network: await viewNetwork(tx, project, deleting), operationId: operation.id };
}

/**
 * Takes a network off one host, where no VM uses it. VMs that are placed there meanwhile wait for it and make it anew.
 * Throws `not_found`, `in_use`.
 */
export async function withdrawNetwork(
  tx: Tx,
  kinds: KindRegistry,
  request: NetworkRequest,
  idOrName: string,
  hostIdOrName: string,
): Promise<Queued> {
  const { project, actor, requestId } = request;
  const row = await lockWithLane(tx, project, idOrName);
  const hosts = (await usesOf(tx, [row.id])).get(row.id)?.hosts ?? [];
  const host = hosts.find(({ id, name }) => id === hostIdOrName || name === hostIdOrName);
  if (host === undefined) {
    throw new DroverError(
      "not_found",
      `The network "${row.name}" is on no host "${hostIdOrName}". Its hosts stand in GET /v1/networks/${row.name}.`,
    );
  }
  await requireUnused(tx, row, host.id);
  const about = {
    ...{ projectId: project.id, actor, requestId },
    targets: [{ kind: "network", id: row.id, name: row.name } as const],
  };
  const operation = await enqueue(tx, withdrawal(about, row, host, "exclusive"), kinds);
  return { network: await viewNetwork(tx, project, row), operationId: operation.id };
}

function withdrawal<About>(
  about: About,
  { id }: NetworkRecord,
  host: { readonly id: HostId; readonly name: string },
  mode: "shared" | "exclusive",
) {
  return {
    ...about,
    kind: networkWithdrawKind,
    input: { networkId: id, hostId: host.id },
    hostId: host.id,
    hosts: [host.name],
    subjects: [
      { kind: "network", id, mode } as const,
      // Ends with the host, should that be given up.
      { kind: "host", id: host.id, mode: "shared" } as const,
    ],
  };
}

/** Its lane before its row. Whoever takes addresses in it holds the lane too, in shared mode, until its commit. */
async function lockWithLane(tx: Tx, project: ProjectRef, idOrName: string): Promise<NetworkRecord> {
  const found = await findNetwork(tx, project.id, idOrName);
  if (found === null) throw noNetwork(idOrName);
  const use = (await usesOf(tx, [found.id])).get(found.id);
  await lockSubjects(tx, [
    { kind: "network", id: found.id, mode: "exclusive" },
    ...(use?.hosts ?? []).map(({ id }) => ({ kind: "host", id, mode: "shared" }) as const),
  ]);
  const row = await lockNetwork(tx, project.id, found.id);
  if (row === null) throw noNetwork(idOrName);
  return row;
}

const USERS_NAMED = 10;

async function requireUnused(tx: Tx, { id, name }: NetworkRecord, hostId: HostId | null): Promise<void> {
  const users = await vmsUsingNetwork(tx, id, hostId, USERS_NAMED + 1);
  if (users.length === 0) return;
  const named = users.slice(0, USERS_NAMED);
  const more = users.length > USERS_NAMED ? " and others" : "";
  throw new DroverError(
    "in_use",
    `VMs have NICs in the network "${name}"${hostId === null ? "" : " on this host"}: ${named.join(", ")}${more}. Delete them or their NICs first.`,
    { details: { vms: named } },
  );
}
