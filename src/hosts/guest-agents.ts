import type { Tx } from "../db/transaction.ts";
import {
  type Call,
  type GuestAgentAbility,
  HypervisorError,
  type HypervisorErrorReason,
  type ObservedDomain,
} from "../hypervisors/hypervisor.ts";
import { messageOf } from "../lib/errors.ts";
import type { HostId, InstallationId } from "../lib/ids.ts";
import type { Log } from "../lib/log.ts";
import { AgentReportSchema, checked } from "./host-facts.ts";
import { NotOwner } from "./host-observation-store.ts";
import type { AgentWord, ObservationSink } from "./observation-sink.ts";

export interface GuestAgentsDeps {
  readonly hostId: HostId;
  readonly ability: GuestAgentAbility;
  readonly installationId: InstallationId;
  readonly sink: Pick<ObservationSink, "agents">;
  readonly logger: Log;
  /** From one question to an agent to the next, as long as it answers. */
  readonly paceMs: number;
  /** Runs a transaction under the owner's epoch. */
  readonly write: <T>(work: (tx: Tx) => Promise<T>) => Promise<T>;
  /** Aborts when the connection is lost or no longer wanted. */
  readonly signal: AbortSignal;
}

/** Agents asked at once on one host. */
const ASKED_AT_ONCE = 3;
const CALL_TIMEOUT_MS = 20_000;
/** One that does not answer is asked less and less often, down to this. */
const LONGEST_PAUSE_MS = 900_000;
/** What comes so close together is recorded together. */
const GATHER_MS = 200;
/** What says something about the agent, and not about the host, the guest's power or us. */
const AGENTS_OWN: ReadonlySet<HypervisorErrorReason> = new Set(["timeout", "failed"]);

interface Guest {
  dueAtMs: number;
  failures: number;
  isAsked: boolean;
}

/**
 * Asks the agents in the guests of one connected host, beside everything else that is done there: nobody waits for it.
 * Which agents there are it learns from what is seen of domains. It lives as long as its connection.
 */
export class GuestAgents {
  readonly #deps: GuestAgentsDeps;
  readonly #guests = new Map<string, Guest>();
  readonly #words = new Map<string, AgentWord>();
  #asked = 0;
  #timer: NodeJS.Timeout | undefined;
  #writing: NodeJS.Timeout | undefined;

  constructor(deps: GuestAgentsDeps) {
    this.#deps = deps;
    deps.signal.addEventListener("abort", () => {
      clearTimeout(this.#timer);
      clearTimeout(this.#writing);
      this.#guests.clear();
    });
  }

  /** Takes what was seen of some domains, or with `all` of all that the host has. */
  see(domains: readonly ObservedDomain[], { all }: { readonly all: boolean }): void {
    if (this.#deps.signal.aborted) return;
    const live = domains.filter((domain) => this.#isAsked(domain));
    const uuids = new Set(live.map(({ uuid }) => uuid));
    const others = all ? [...this.#guests.keys()] : domains.map(({ uuid }) => uuid);
    for (const uuid of others) if (!uuids.has(uuid)) this.#guests.delete(uuid);
    for (const uuid of uuids) {
      if (!this.#guests.has(uuid))
        this.#guests.set(uuid, { dueAtMs: performance.now(), failures: 0, isAsked: false });
    }
    this.#askDue();
  }

  #isAsked({ installationId, power, agent }: ObservedDomain): boolean {
    return installationId === this.#deps.installationId && power === "running" && agent === "connected";
  }

  #askDue(): void {
    clearTimeout(this.#timer);
    if (this.#deps.signal.aborted) return;
    const waiting = [...this.#guests]
      .filter(([, guest]) => !guest.isAsked)
      .sort(([, one], [, other]) => one.dueAtMs - other.dueAtMs);
    for (const [uuid, guest] of waiting) {
      if (this.#asked >= ASKED_AT_ONCE) return;
      const leftMs = guest.dueAtMs - performance.now();
      if (leftMs > 0) {
        this.#timer = setTimeout(() => {
          this.#askDue();
        }, leftMs).unref();
        return;
      }
      void this.#ask(uuid, guest);
    }
  }

  async #ask(uuid: string, guest: Guest): Promise<void> {
    const { ability, signal, paceMs } = this.#deps;
    guest.isAsked = true;
    this.#asked++;
    const askedAt = new Date();
    const call: Call = { signal, timeoutMs: CALL_TIMEOUT_MS, beforeSend: () => undefined };
    try {
      const report = checked(AgentReportSchema, await ability.askAgent(uuid, call), "an agent's report");
      guest.failures = 0;
      this.#keep({ uuid, askedAt, report, error: null });
    } catch (error) {
      guest.failures++;
      if (signal.aborted) return;
      const said = error instanceof HypervisorError && AGENTS_OWN.has(error.reason);
      if (said) this.#keep({ uuid, askedAt, report: null, error: error.message.slice(0, 500) });
    } finally {
      this.#asked--;
      guest.isAsked = false;
      const pauseMs = Math.min(paceMs * 2 ** Math.min(guest.failures, 10), LONGEST_PAUSE_MS);
      // The jitter keeps the guests of a host that came up at once from being asked at once for ever.
      guest.dueAtMs = performance.now() + Math.max(pauseMs, paceMs) * (0.9 + Math.random() / 5);
      this.#askDue();
    }
  }

  #keep(word: AgentWord): void {
    if (this.#deps.signal.aborted) return;
    this.#words.set(word.uuid, word);
    this.#writing ??= setTimeout(() => {
      void this.#record();
    }, GATHER_MS).unref();
  }

  /** What is not taken down is said anew at the next question. */
  async #record(): Promise<void> {
    const { hostId, sink, write, logger } = this.#deps;
    const words = [...this.#words.values()];
    this.#words.clear();
    try {
      await write((tx) => sink.agents(tx, hostId, words));
    } catch (error) {
      if (!(error instanceof NotOwner))
        logger.warn({ hostId, error: messageOf(error) }, "could not record what guests' agents told");
    } finally {
      this.#writing = undefined;
      const [next] = this.#words.values();
      if (next !== undefined) this.#keep(next);
    }
  }
}
