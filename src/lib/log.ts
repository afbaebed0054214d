import type { Logger } from "pino";

/** What code below the edge needs of a logger: four levels, facts first, then the message. */
export type Log = Pick<Logger, "debug" | "info" | "warn" | "error">;
