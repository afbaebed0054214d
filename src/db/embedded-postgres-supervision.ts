import { messageOf } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";

/** A server that is to run for as long as somebody uses it. */
interface SupervisedServer {
  isRunning(): boolean;
  /** Starts it unless another process does; rejects when it does not come up. */
  startAgain(): Promise<void>;
}

interface Supervision {
  /** Lets the server be; waits for a start that is under way. */
  stop(): Promise<void>;
}

const LOOK_EVERY_MS = 500;
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 30_000;
const STABLE_MS = 60_000;

/**
 * Starts a server again whenever it is gone: at once where it had lived for a minute, else after pauses that double,
 * for one that cannot live must not be started at full speed for ever.
 */
export function superviseServer(server: SupervisedServer, logger: Log): Supervision {
  let stopped = false;
  let startedAt = -Infinity;
  let pauseMs = 0;
  let starting: Promise<void> | null = null;

  async function start(): Promise<void> {
    const now = performance.now();
    if (now - startedAt > STABLE_MS) pauseMs = 0;
    if (now - startedAt < pauseMs) return;
    startedAt = now;
    pauseMs = Math.min(LONGEST_PAUSE_MS, Math.max(FIRST_PAUSE_MS, pauseMs * 2));
    try {
      await server.startAgain();
    } catch (error) {
      const facts = { error: messageOf(error), pauseSeconds: pauseMs / 1000 };
      logger.error(facts, "could not start the embedded Postgres again; trying again");
    }
  }

  const timer = setInterval(() => {
    if (stopped || starting !== null || server.isRunning()) return;
    starting = start().finally(() => {
      starting = null;
    });
  }, LOOK_EVERY_MS).unref();
  return {
    async stop() {
      stopped = true;
      clearInterval(timer);
      await starting;
    },
  };
}
