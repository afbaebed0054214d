import type { NetworkSpec, StaticLease } from "../hypervisor.ts";
import type { ConsoleEntry } from "./sim-console-log.ts";
import type { DomainTuple } from "./sim-domains.ts";

/** The statements that only look at a simulated host, and their rows. $1 is the host. */

/** What every reading statement selects beside its own columns. */
export interface ReadRow {
  readonly down: boolean;
  readonly hasFaults: boolean;
}

const HOST = `h.down, h.has_faults AS "hasFaults"`;
const DOMAIN = `json_build_array(d.uuid, d.name, d.power, d.reason, d.cpu_count, d.memory_mib, d.installation_id,
  d.vm_id, d.autostart)`;
const VOLUME = `jsonb_build_object('name', v.name, 'capacityBytes', v.capacity_bytes, 'allocationBytes', v.allocation_bytes)`;

const NETWORK = `jsonb_build_object('name', n.name, 'uuid', n.uuid, 'definition', n.definition, 'leases', n.leases)`;

export interface NetworkValue {
  readonly name: string;
  readonly uuid: string;
  /** The specification that it was made by. */
  readonly definition: NetworkSpec;
  readonly leases: readonly StaticLease[];
}

export interface NetworkRow extends ReadRow {
  readonly network: NetworkValue | null;
}
export const READ_NETWORK = `
SELECT ${HOST}, (SELECT ${NETWORK} FROM sim.network n WHERE n.host_id = h.id AND n.uuid = $2) AS network
FROM sim.host h WHERE h.id = $1`;

export interface NicsRow extends ReadRow {
  /** Null: there is no such domain. */
  readonly nics: { readonly power: string; readonly macAddresses: readonly string[] } | null;
}
export const READ_NICS = `
SELECT ${HOST}, (
  SELECT jsonb_build_object('power', w.power, 'macAddresses', coalesce((
    SELECT jsonb_agg(n->>'macAddress') FROM jsonb_array_elements(coalesce(d.live_nics, d.definition->'nics', '[]')) n), '[]'))
  FROM sim.domain_now w JOIN sim.domain d ON d.host_id = w.host_id AND d.uuid = w.uuid
  WHERE w.host_id = h.id AND w.uuid = $2) AS nics
FROM sim.host h WHERE h.id = $1`;

/** Uses up a fault that was ordered for the call $2, if there is one. */
export const TAKE_FAULT = "SELECT sim.take_fault($1, $2) AS fault";

export interface HostRow extends ReadRow {
  /** How often connections to this host have been broken. */
  readonly breaks: number;
}
export const READ_HOST = `SELECT ${HOST}, h.breaks FROM sim.host h WHERE h.id = $1`;

export interface InventoryRow extends ReadRow {
  readonly domains: readonly DomainTuple[];
  /** Sums of 64-bit integers, exact in a double up to 8 PiB. */
  readonly takenBytes: number;
  readonly usedMemoryMib: number;
  readonly networks: readonly NetworkValue[];
  readonly addresses: readonly { readonly macAddress: string; readonly ipv4Address: string }[];
}
export const READ_INVENTORY = `
SELECT ${HOST}, coalesce((SELECT jsonb_agg(${NETWORK} ORDER BY n.name) FROM sim.network n WHERE n.host_id = h.id), '[]') AS networks,
  coalesce((SELECT jsonb_agg(l ORDER BY l->>'macAddress')
    FROM sim.domain_now w JOIN sim.domain d ON d.host_id = w.host_id AND d.uuid = w.uuid
    CROSS JOIN LATERAL jsonb_array_elements(coalesce(d.live_nics, d.definition->'nics', '[]')) c
    JOIN sim.network n ON n.host_id = h.id AND n.name = c->>'network'
    CROSS JOIN LATERAL jsonb_array_elements(n.leases) l
    WHERE w.host_id = h.id AND w.power = 'running' AND l->>'macAddress' = c->>'macAddress'), '[]') AS addresses,
  coalesce(i.domains, '[]') AS domains, coalesce(i.used_memory_mib, 0)::float8 AS "usedMemoryMib",
  (h.filled_bytes + coalesce((SELECT sum(v.allocation_bytes) FROM sim.volume v WHERE v.host_id = h.id), 0))::float8 AS "takenBytes"
FROM sim.host h
LEFT JOIN LATERAL (
  SELECT json_agg(${DOMAIN} ORDER BY d.uuid) AS domains,
    sum(d.memory_mib) FILTER (WHERE d.power IN ('running', 'paused')) AS used_memory_mib
  FROM sim.domain_now d WHERE d.host_id = h.id
) i ON true
WHERE h.id = $1`;

export interface DomainRow extends ReadRow {
  readonly domain: DomainTuple | null;
}
export const READ_DOMAIN = `
SELECT ${HOST}, (SELECT ${DOMAIN} FROM sim.domain_now d WHERE d.host_id = h.id AND d.uuid = $2) AS domain
FROM sim.host h WHERE h.id = $1`;

export interface VolumeValue {
  readonly name: string;
  readonly capacityBytes: number;
  readonly allocationBytes: number;
}
export interface VolumeRow extends ReadRow {
  readonly volume: VolumeValue | null;
}
export const READ_VOLUME = `
SELECT ${HOST},
  (SELECT ${VOLUME} FROM sim.volume v WHERE v.host_id = h.id AND v.pool = $2 AND v.name = $3) AS volume
FROM sim.host h WHERE h.id = $1`;

export interface DigestRow extends ReadRow {
  readonly isThere: boolean;
  /** Null for what nothing was ever written to. */
  readonly sha256: string | null;
}
export const READ_DIGEST = `
SELECT ${HOST}, v.name IS NOT NULL AS "isThere", v.content_sha256 AS sha256
FROM sim.host h LEFT JOIN sim.volume v ON v.host_id = h.id AND v.pool = $2 AND v.name = $3
WHERE h.id = $1`;

export interface VolumesRow extends ReadRow {
  readonly volumes: readonly VolumeValue[];
}
export const READ_VOLUMES = `
SELECT ${HOST},
  coalesce((SELECT jsonb_agg(${VOLUME} ORDER BY v.name COLLATE "C") FROM sim.volume v
    WHERE v.host_id = h.id AND v.pool = $2 AND starts_with(v.name, $3)), '[]') AS volumes
FROM sim.host h WHERE h.id = $1`;

export interface ConsoleRow extends ReadRow {
  readonly entries: readonly ConsoleEntry[];
}
export const READ_CONSOLE = `
SELECT ${HOST},
  coalesce((SELECT c.entries FROM sim.console_log c WHERE c.host_id = h.id AND c.uuid = $2), '[]') AS entries
FROM sim.host h WHERE h.id = $1`;

export interface SerialRow extends ConsoleRow, DomainRow {}
export const READ_SERIAL = `
SELECT ${HOST},
  (SELECT ${DOMAIN} FROM sim.domain_now d WHERE d.host_id = h.id AND d.uuid = $2) AS domain,
  coalesce((SELECT c.entries FROM sim.console_log c WHERE c.host_id = h.id AND c.uuid = $2), '[]') AS entries
FROM sim.host h WHERE h.id = $1`;
