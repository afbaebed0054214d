import { Prisma } from "../../src/db/generated/client.ts";
import type { TestDatabase } from "../fixtures/database.ts";

/**
 * Watches from inside the database who changes simulated hosts and records of steps: each process connects under a
 * name of its own (`application_name`), and is entered in `watch.process` with its pid.
 */
type Db = TestDatabase["db"];

// The host's owner at this very moment, or the claim's worker, is to be the process that writes. Triggers see what is
// committed, and what their own statement did: the end of an operation gives its claim up in the statement that ends
// its last step, so a record without a claim says nothing.
const WATCH: readonly string[] = [
  "CREATE SCHEMA watch",
  "CREATE TABLE watch.process (pid int PRIMARY KEY, name text NOT NULL)",
  "CREATE TABLE watch.trespass (at timestamptz NOT NULL DEFAULT clock_timestamp(), who text NOT NULL, what text NOT NULL)",
  `CREATE FUNCTION watch.owns(worker_id uuid) RETURNS boolean LANGUAGE sql AS $$
     SELECT EXISTS (SELECT FROM public.worker w JOIN watch.process p ON p.pid = w.pid
       WHERE w.id = worker_id AND p.name = current_setting('application_name')) $$`,
  `CREATE FUNCTION watch.world() RETURNS trigger LANGUAGE plpgsql AS $$
   DECLARE host_name text := (SELECT s.name FROM sim.host s WHERE s.id = coalesce(NEW.host_id, OLD.host_id));
   BEGIN
     IF NOT EXISTS (SELECT FROM public.host h WHERE h.name = host_name AND watch.owns(h.owner_id)) THEN
       INSERT INTO watch.trespass (who, what)
       VALUES (current_setting('application_name'), format('%s %s on %s', TG_OP, TG_TABLE_NAME, host_name));
     END IF;
     RETURN NULL;
   END $$`,
  `CREATE FUNCTION watch.step() RETURNS trigger LANGUAGE plpgsql AS $$
   BEGIN
     IF EXISTS (SELECT FROM public.operation o
                WHERE o.id = NEW.operation_id AND o.token IS NOT NULL AND NOT watch.owns(o.worker_id)) THEN
       INSERT INTO watch.trespass (who, what)
       VALUES (current_setting('application_name'), format('%s of step %s as %s', TG_OP, NEW.name, NEW.state));
     END IF;
     RETURN NULL;
   END $$`,
  ...["domain", "volume"].map(
    (table) =>
      `CREATE TRIGGER watch AFTER INSERT OR UPDATE OR DELETE ON sim.${table}
       FOR EACH ROW EXECUTE FUNCTION watch.world()`,
  ),
  `CREATE TRIGGER watch AFTER INSERT OR UPDATE ON operation_step
   FOR EACH ROW EXECUTE FUNCTION watch.step()`,
];

/** Begins to watch a database that has its simulated world already. */
export async function watchTrespasses(db: Db): Promise<void> {
  for (const statement of WATCH) await db.$executeRaw(Prisma.raw(statement));
}

/** Every change so far that came from a process without the right to it. */
export async function trespasses(db: Db): Promise<string[]> {
  const rows = await db.$queryRaw<{ at: Date; who: string; what: string }[]>`
    SELECT at, who, what FROM watch.trespass ORDER BY at`;
  return rows.map(({ at, who, what }) => `${at.toISOString()} ${who}: ${what}`);
}
