import type { ClientBase } from "pg";
import { DatabaseSetupError } from "./setup-error.ts";

/** The oldest server that the tests run on; Debian 12 has it. */
const MINIMUM_POSTGRES = 15;

/** Throws a DatabaseSetupError when the server behind this connection is older than Postgres 15. */
export async function refuseOldServer(client: ClientBase): Promise<void> {
  const { rows } = await client.query<{ number: number; text: string }>(
    "SELECT current_setting('server_version_num')::int AS number, current_setting('server_version') AS text",
  );
  for (const version of rows) requireSupported(version.number, version.text);
}

/** As refuseOldServer; `number` is Postgres' server_version_num, such as 150004, and `text` its server_version. */
export function requireSupported(number: number, text: string): void {
  if (number >= MINIMUM_POSTGRES * 10_000) return;
  throw new DatabaseSetupError(
    `The server of DATABASE_URL is Postgres ${text}; Drover needs ${MINIMUM_POSTGRES} or newer. Upgrade it, or leave DATABASE_URL out to use the embedded one.`,
  );
}
