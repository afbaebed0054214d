import type { Sql, Tx } from "../db/transaction.ts";
import { asId, type TokenId, type VmId } from "../lib/ids.ts";
import type { ConsoleKind } from "./console-schemas.ts";

/** Tickets. Their times are the database's own, for several processes make and take them. */

export interface ConsoleTicket {
  readonly vmId: VmId;
  readonly tokenId: TokenId;
  readonly actor: string;
  readonly kind: ConsoleKind;
  readonly force: boolean;
}

interface TicketRow {
  readonly vm_id: string;
  readonly token_id: string;
  readonly actor: string;
  readonly kind: string;
  readonly force: boolean;
}

/** Keeps a ticket for so long, removes those that are over, and returns when this one will be. */
export async function insertTicket(
  tx: Tx,
  secretHash: Uint8Array,
  { vmId, tokenId, actor, kind, force }: ConsoleTicket,
  lifetimeSeconds: number,
): Promise<Date> {
  const [row] = await tx.$queryRaw<{ expires_at: Date }[]>`
    WITH over AS (DELETE FROM console_ticket WHERE expires_at < now())
    INSERT INTO console_ticket (secret_hash, vm_id, token_id, actor, kind, force, expires_at)
    VALUES (${secretHash}, ${vmId}::uuid, ${tokenId}::uuid, ${actor}, ${kind}, ${force},
      now() + make_interval(secs => ${lifetimeSeconds}))
    RETURNING expires_at`;
  if (row === undefined) throw new Error("an INSERT returned no row");
  return row.expires_at;
}

/**
 * Takes a ticket: of several who ask at once, one gets it. Null when it was taken, is over or never was, or the token of
 * who asked for it no longer works.
 */
export async function takeTicket(tx: Tx, secretHash: Uint8Array): Promise<ConsoleTicket | null> {
  const [row] = await tx.$queryRaw<TicketRow[]>`
    DELETE FROM console_ticket c USING api_token t
    WHERE c.secret_hash = ${secretHash} AND c.expires_at > now() AND t.id = c.token_id
      AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
    RETURNING c.vm_id::text, c.token_id::text, c.actor, c.kind, c.force`;
  return row === undefined ? null : ticketOf(row);
}

/** Looks at a ticket without taking it. */
export async function findTicket(db: Sql, secretHash: Uint8Array): Promise<ConsoleTicket | null> {
  const [row] = await db.$queryRaw<TicketRow[]>`
    SELECT vm_id::text, token_id::text, actor, kind, force FROM console_ticket
    WHERE secret_hash = ${secretHash} AND expires_at > now()`;
  return row === undefined ? null : ticketOf(row);
}

function ticketOf(row: TicketRow): ConsoleTicket {
  return {
    vmId: asId<VmId>(row.vm_id),
    tokenId: asId<TokenId>(row.token_id),
    actor: row.actor,
    // Written by insertTicket only.
    kind: row.kind as ConsoleKind,
    force: row.force,
  };
}
