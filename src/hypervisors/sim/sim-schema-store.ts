import { createHash } from "node:crypto";
import type { ClientBase } from "pg";
import { SIM_CONTROL_FUNCTIONS } from "./sim-control-functions-store.ts";
import { SIM_FUNCTIONS } from "./sim-functions-store.ts";
import { SIM_NETWORK_FUNCTIONS } from "./sim-network-functions-store.ts";
import { SIM_VOLUME_FUNCTIONS } from "./sim-volume-functions-store.ts";

/**
 * The tables of the simulated world, in a schema of their own. Each entry is applied once, in order; what is
 * released is never changed, only followed by another.
 */
const MIGRATIONS: readonly string[] = [
  `
CREATE TABLE sim.host (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  hypervisor text NOT NULL CHECK (hypervisor IN ('kvm', 'xen')),
  name text NOT NULL,
  down boolean NOT NULL DEFAULT false,
  has_faults boolean NOT NULL DEFAULT false,
  -- Space in the pool that is taken by what is no volume of the world.
  filled_bytes bigint NOT NULL DEFAULT 0,
  UNIQUE (hypervisor, name)
);
CREATE TABLE sim.domain (
  host_id integer NOT NULL REFERENCES sim.host ON DELETE CASCADE,
  uuid uuid NOT NULL,
  name text NOT NULL,
  power text NOT NULL CHECK (power IN ('running', 'paused', 'saved', 'off', 'crashed')),
  reason text,
  cpu_count integer NOT NULL,
  memory_mib integer NOT NULL,
  -- What the next start uses: {"guestType", "cpuCount", "memoryMib", "volumes": [{"pool", "name"}], "networks": [], "commandLine"}.
  definition jsonb NOT NULL,
  installation_id uuid,
  vm_id uuid,
  autostart boolean NOT NULL DEFAULT false,
  ignores_shutdown boolean NOT NULL DEFAULT false,
  -- When the guest, asked to shut down, will be off.
  stops_at timestamptz,
  PRIMARY KEY (host_id, uuid),
  UNIQUE (host_id, name)
) WITH (fillfactor = 70);
CREATE TABLE sim.volume (
  host_id integer NOT NULL REFERENCES sim.host ON DELETE CASCADE,
  pool text NOT NULL,
  name text NOT NULL,
  format text NOT NULL CHECK (format IN ('raw', 'qcow2')),
  capacity_bytes bigint NOT NULL,
  allocation_bytes bigint NOT NULL,
  content_sha256 text,
  PRIMARY KEY (host_id, pool, name)
);
CREATE TABLE sim.console_log (
  host_id integer NOT NULL REFERENCES sim.host ON DELETE CASCADE,
  uuid uuid NOT NULL,
  -- What happened to the guest, oldest first; the log's text is made of it when it is read.
  entries jsonb NOT NULL,
  PRIMARY KEY (host_id, uuid)
);
CREATE TABLE sim.fault (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  host_id integer NOT NULL REFERENCES sim.host ON DELETE CASCADE,
  call text NOT NULL,
  outcome text NOT NULL CHECK (outcome IN ('fail', 'hang', 'lose-answer')),
  remaining integer NOT NULL CHECK (remaining > 0)
);
CREATE INDEX ON sim.fault (host_id);
-- What a call is answered: an error (a reason of the contract, or 'hang': no answer at all) with its message, else
-- a value; and 'lose-answer' as fault where the effect has happened and the caller is not to learn of it.
CREATE TYPE sim.answer AS (error text, message text, fault text, value jsonb);
-- Domains as they are at this moment: a guest whose time to stop is over is off, also before anybody wrote it down.
CREATE VIEW sim.domain_now AS
  SELECT host_id, uuid, name, cpu_count, memory_mib, installation_id, vm_id, autostart,
    CASE WHEN stops_at <= clock_timestamp() THEN 'off' ELSE power END AS power,
    CASE WHEN stops_at <= clock_timestamp() THEN 'shutdown' ELSE reason END AS reason
  FROM sim.domain;
`,
  // How often connections to the host have been broken: one that was opened since is not meant.
  "ALTER TABLE sim.host ADD COLUMN breaks integer NOT NULL DEFAULT 0",
  // Until when nobody sees the domain: its guest reboots, and the host makes it anew.
  `
ALTER TABLE sim.domain ADD COLUMN absent_until timestamptz;
CREATE OR REPLACE VIEW sim.domain_now AS
  SELECT host_id, uuid, name, cpu_count, memory_mib, installation_id, vm_id, autostart,
    CASE WHEN stops_at <= clock_timestamp() THEN 'off' ELSE power END AS power,
    CASE WHEN stops_at <= clock_timestamp() THEN 'shutdown' ELSE reason END AS reason
  FROM sim.domain WHERE absent_until IS NULL OR absent_until <= clock_timestamp();
`,
  // Networks that were made, with what their DHCP gives to whom: [{"macAddress", "ipv4Address"}].
  `
CREATE TABLE sim.network (
  host_id integer NOT NULL REFERENCES sim.host ON DELETE CASCADE,
  uuid uuid NOT NULL,
  name text NOT NULL,
  definition jsonb NOT NULL,
  installation_id uuid,
  leases jsonb NOT NULL DEFAULT '[]',
  PRIMARY KEY (host_id, uuid),
  UNIQUE (host_id, name)
);
`,
  // The NICs of a guest that is on; its definition has those of its next start.
  "ALTER TABLE sim.domain ADD COLUMN live_nics jsonb",
  // The volume of the same pool that this one reads from where it holds nothing itself; and how many bytes were sent to it.
  "ALTER TABLE sim.volume ADD COLUMN base_name text, ADD COLUMN received_bytes bigint NOT NULL DEFAULT 0",
];

const DROP_FUNCTIONS = `
DO $$
DECLARE f regprocedure;
BEGIN
  FOR f IN SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'sim'::regnamespace LOOP
    EXECUTE 'DROP FUNCTION ' || f || ' CASCADE';
  END LOOP;
END $$`;

const FUNCTIONS = [SIM_FUNCTIONS, SIM_VOLUME_FUNCTIONS, SIM_NETWORK_FUNCTIONS, SIM_CONTROL_FUNCTIONS].join(
  "\n",
);
const FUNCTIONS_DIGEST = createHash("sha256").update(FUNCTIONS).digest("hex");

/** Number of the advisory lock under which the schema is made: any constant that nobody else uses. */
const SCHEMA_LOCK = 7_420_001;

interface SchemaState {
  readonly version: number;
  readonly functions: string;
}

/**
 * Makes the world's schema, or brings it up to date. Safe to run from several processes at once and cheap when there
 * is nothing to do. The functions are made anew whenever their text has changed.
 */
export async function ensureSimSchema(client: ClientBase): Promise<void> {
  if (isCurrent(await readState(client))) return;
  await client.query("BEGIN");
  try {
    await client.query("SELECT pg_advisory_xact_lock($1)", [SCHEMA_LOCK]);
    await client.query("CREATE SCHEMA IF NOT EXISTS sim");
    await client.query(
      "CREATE TABLE IF NOT EXISTS sim.schema_state (version integer NOT NULL, functions text NOT NULL)",
    );
    await bringUpToDate(client, await readState(client));
    await client.query("COMMIT");
  } catch (error) {
    await client.query("ROLLBACK");
    throw error;
  }
}

async function bringUpToDate(client: ClientBase, state: SchemaState | null): Promise<void> {
  if (isCurrent(state)) return;
  const version = state?.version ?? 0;
  if (version > MIGRATIONS.length) {
    throw new Error(
      "the simulated world was made by a newer Drover: update this one, or drop the schema sim",
    );
  }
  await client.query(DROP_FUNCTIONS);
  for (const migration of MIGRATIONS.slice(version)) await client.query(migration);
  await client.query(FUNCTIONS);
  await client.query("DELETE FROM sim.schema_state");
  await client.query("INSERT INTO sim.schema_state VALUES ($1, $2)", [MIGRATIONS.length, FUNCTIONS_DIGEST]);
}

async function readState(client: ClientBase): Promise<SchemaState | null> {
  const exists = await client.query("SELECT to_regclass('sim.schema_state') IS NOT NULL AS yes");
  if ((exists.rows as { yes: boolean }[])[0]?.yes !== true) return null;
  const result = await client.query<{ version: number; functions: string }>(
    "SELECT version, functions FROM sim.schema_state",
  );
  return result.rows[0] ?? null;
}

function isCurrent(state: SchemaState | null): boolean {
  return state !== null && state.version === MIGRATIONS.length && state.functions === FUNCTIONS_DIGEST;
}
