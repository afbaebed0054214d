import { readFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, release, totalmem } from "node:os";
import pg from "pg";
import { GIB } from "../../src/lib/units.ts";

/** What a figure was measured on: it stands above every one. `databaseUrl` null: no database was used. */
export async function describeMachine(databaseUrl: string | null): Promise<string[]> {
  const system = /^PRETTY_NAME="(.*)"$/m.exec(readFileSync("/etc/os-release", "utf8"))?.[1] ?? "unknown";
  const load = loadavg().map((value) => value.toFixed(2));
  return [
    `CPU       ${cpus()[0]?.model ?? "unknown"}, ${availableParallelism()} usable cores`,
    `memory    ${(totalmem() / GIB).toFixed(1)} GiB`,
    `system    ${system}, Linux ${release()}`,
    `Node      ${process.version}`,
    ...(databaseUrl === null ? [] : [`Postgres  ${await postgresFacts(databaseUrl)}`]),
    `load      ${load.join(" ")} (1, 5, 15 minutes, before the run)`,
  ];
}

async function postgresFacts(url: string): Promise<string> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const { rows } = await client.query<{ version: string; fsync: string; sync: string }>(
      `SELECT current_setting('server_version') AS version, current_setting('fsync') AS fsync,
              current_setting('synchronous_commit') AS sync`,
    );
    const [facts] = rows;
    return `${facts?.version ?? "?"}, fsync ${facts?.fsync ?? "?"}, synchronous_commit ${facts?.sync ?? "?"}`;
  } finally {
    await client.end();
  }
}
