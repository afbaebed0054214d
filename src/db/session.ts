import pg from "pg";
import { refuseOldServer } from "./server-version.ts";
import { statementName } from "./sql.ts";

const CONNECT_TIMEOUT_MS = 5_000;
// A peer that vanished without a word (power, cable) is found by a question that gets no answer.
const PROBE_INTERVAL_MS = 5_000;
const ANSWER_TIMEOUT_MS = 5_000;

export interface SessionOptions {
  readonly url: string;
  /** `isOwn`: it was sent over this very connection. */
  readonly onNotification: (channel: string, isOwn: boolean) => void;
  /** Called once, as soon as the connection is known to be gone; not before open() resolved, nor after close(). */
  readonly onLost: (session: Session, reason: string) => void;
}

/** One connection of its own, whose end is noticed at once. Statements run one after the other. */
export class Session {
  readonly #client: pg.Client;
  readonly #options: SessionOptions;
  readonly #probe: NodeJS.Timeout;
  #last: Promise<unknown> = Promise.resolve();
  #processId: number | null = null;
  #opened = false;
  #over = false;

  private constructor(client: pg.Client, options: SessionOptions) {
    this.#client = client;
    this.#options = options;
    client.on("notification", ({ channel, processId }) => {
      options.onNotification(channel, processId === this.#processId);
    });
    client.on("error", (error) => {
      this.#lost(error.message);
    });
    client.on("end", () => {
      this.#lost("the server closed the connection");
    });
    this.#probe = setInterval(() => {
      this.run("SELECT 1").catch(() => undefined); // a failure ends the session, which tells its owner
    }, PROBE_INTERVAL_MS).unref();
  }

  /** Rejects when the server cannot be reached within 5 seconds, or is older than Postgres 15. */
  static async open(options: SessionOptions): Promise<Session> {
    const client = new pg.Client({
      connectionString: options.url,
      application_name: "drover-session",
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      query_timeout: ANSWER_TIMEOUT_MS,
      keepAlive: true,
    });
    const session = new Session(client, options);
    try {
      await client.connect();
      await refuseOldServer(client);
      const { rows } = await client.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
      session.#processId = rows[0]?.pid ?? null;
      session.#opened = true;
      return session;
    } catch (error) {
      await session.close();
      throw error;
    }
  }

  /** True until the connection is lost or closed. */
  isOpen(): boolean {
    return !this.#over;
  }

  /** Runs a statement after those before it. One that fails or gets no answer in 5 seconds ends the session. */
  async run<Row extends pg.QueryResultRow>(
    sql: string,
    values: readonly unknown[] = [],
  ): Promise<readonly Row[]> {
    // Prepared, for most are sent again and again.
    const name = statementName(sql);
    const statement = { text: sql, values: [...values], ...(name === undefined ? {} : { name }) };
    const result = this.#last.then(() => this.#client.query<Row>(statement));
    this.#last = result.catch((error: unknown) => {
      this.#lost(error instanceof Error ? error.message : String(error));
    });
    return (await result).rows;
  }

  /** Ends the connection without calling onLost. */
  async close(): Promise<void> {
    this.#over = true;
    clearInterval(this.#probe);
    await this.#client.end().catch(() => undefined); // gone already: as it should be
  }

  #lost(reason: string): void {
    if (this.#over) return;
    void this.close();
    if (this.#opened) this.#options.onLost(this, reason);
  }
}
