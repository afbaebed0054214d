import { setTimeout as sleep } from "node:timers/promises";
import type { Listener } from "../db/listener.ts";
import { Session } from "../db/session.ts";
import { messageOf } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import { NUMBERED, WRITTEN } from "./event-channels.ts";
import { numberEvents, SEQUENCER_LOCK_KEY, takeSequencerLock } from "./event-sequencer-store.ts";

export interface EventSequencerDeps {
  /** A direct connection: the sequencer's lock lives in its session. */
  readonly url: string;
  readonly wakes: Pick<Listener, "listen" | "notify">;
  readonly logger: Log;
  /** How often it looks without being woken, in seconds; 1 without. */
  readonly pollSeconds?: number;
}

/** Numbers committed events. Every worker starts one; the one that holds the lock works, the others stand by. */
export interface EventSequencer {
  /** True while this one numbers. */
  isActive(): boolean;
  stop(): Promise<void>;
}

const PORTION = 1_000;
// Numbering a few events costs as much as numbering many.
const GATHER_MS = 20;

export function startEventSequencer(deps: EventSequencerDeps): EventSequencer {
  return new Sequencer(deps);
}

class Sequencer implements EventSequencer {
  readonly #deps: EventSequencerDeps;
  readonly #unlisten: () => void;
  readonly #poll: NodeJS.Timeout;
  #session: Session | null = null;
  #active = false;
  #due = false;
  #stopped = false;
  #working: Promise<void> | null = null;

  constructor(deps: EventSequencerDeps) {
    this.#deps = deps;
    this.#unlisten = deps.wakes.listen(WRITTEN, () => {
      if (this.#active) this.#wake();
    });
    this.#poll = setInterval(
      () => {
        this.#wake();
      },
      (deps.pollSeconds ?? 1) * 1000,
    );
    this.#wake();
  }

  isActive(): boolean {
    return this.#active;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#unlisten();
    clearInterval(this.#poll);
    await this.#working;
    this.#active = false;
    await this.#session?.close();
  }

  #wake(): void {
    if (this.#stopped) return;
    this.#due = true;
    this.#working ??= this.#work().finally(() => {
      this.#working = null;
    });
  }

  async #work(): Promise<void> {
    while (this.#due && !this.#stopped) {
      this.#due = false;
      try {
        const session = await this.#connected();
        this.#active ||= await takeSequencerLock(session, SEQUENCER_LOCK_KEY);
        if (this.#active) await this.#number(session);
        await sleep(GATHER_MS);
      } catch (error) {
        this.#deps.logger.debug({ error: messageOf(error) }, "could not number events; trying again");
      }
    }
  }

  async #number(session: Session): Promise<void> {
    for (;;) {
      const numbered = await numberEvents(session, PORTION);
      if (numbered > 0) this.#deps.wakes.notify(NUMBERED);
      if (numbered < PORTION || this.#stopped) return;
    }
  }

  async #connected(): Promise<Session> {
    if (this.#session?.isOpen() === true) return this.#session;
    this.#active = false;
    this.#session = await Session.open({
      url: this.#deps.url,
      onNotification: () => undefined,
      onLost: () => {
        this.#active = false;
      },
    });
    return this.#session;
  }
}
