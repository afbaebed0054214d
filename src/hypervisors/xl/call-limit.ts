import { type Call, HypervisorError } from "../hypervisor.ts";

/**
 * What ends a call before its answer: the caller, its time limit, or the loss of the connection. `signal` aborts with
 * the HypervisorError that the call then rejects with.
 */
export class CallLimit {
  readonly signal: AbortSignal;
  readonly #call: Pick<Call, "signal" | "timeoutMs">;
  readonly #ended = new AbortController();
  #timer: NodeJS.Timeout | undefined;

  constructor(call: Pick<Call, "signal" | "timeoutMs">, lost: AbortSignal) {
    this.#call = call;
    this.signal = AbortSignal.any([lost, this.#ended.signal]);
    if (call.signal.aborted) this.#giveUp();
    else call.signal.addEventListener("abort", this.#giveUp, { once: true });
    this.resume();
  }

  /** The caller's own part takes its time: it does not count. */
  pause(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** From now on the host has the whole of the time to answer. */
  resume(): void {
    clearTimeout(this.#timer);
    const { timeoutMs } = this.#call;
    this.#timer = setTimeout(() => {
      const message = `the host did not answer within ${timeoutMs} ms; what was sent may still happen`;
      this.#ended.abort(new HypervisorError("timeout", message));
    }, timeoutMs);
  }

  /** Must be called when the call is over. */
  end(): void {
    this.pause();
    this.#call.signal.removeEventListener("abort", this.#giveUp);
  }

  readonly #giveUp = (): void => {
    const cause: unknown = this.#call.signal.reason;
    const message = "the call was ended before the host answered";
    this.#ended.abort(new HypervisorError("aborted", message, { cause }));
  };
}
