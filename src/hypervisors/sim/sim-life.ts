import { type Call, HypervisorError } from "../hypervisor.ts";

/** The life of one connection: open until it is lost or closed, and then for ever over. */
export class SimLife {
  #over: HypervisorError | null = null;
  readonly #waiting = new Set<(error: HypervisorError) => void>();

  /** Why it is over; null while the connection is open. */
  get over(): HypervisorError | null {
    return this.#over;
  }

  /** Calls the listener when the connection ends. Returns how to stop. */
  onEnd(listener: (error: HypervisorError) => void): () => void {
    this.#waiting.add(listener);
    return () => this.#waiting.delete(listener);
  }

  /** Ends the connection: everything that waits on it rejects. The first reason stays. */
  end(error: HypervisorError): void {
    if (this.#over !== null) return;
    this.#over = error;
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const listener of waiting) listener(error);
  }
}

/**
 * Waits for work no longer than the caller wants to: until it aborts, its deadline passes (null: none) or the
 * connection ends. The work itself may go on, as on a real host; `isOver` tells it that nobody waits any more.
 */
export function withinLimits<T>(
  limits: { readonly life: SimLife; readonly signal: AbortSignal; readonly timeoutMs: number | null },
  work: (isOver: () => boolean) => Promise<T>,
): Promise<T> {
  const { life, signal, timeoutMs } = limits;
  return new Promise<T>((resolve, reject) => {
    let over = false;
    let timer: NodeJS.Timeout | undefined;
    let stopListening = (): unknown => undefined;
    const end = (settle: () => void): void => {
      if (over) return;
      over = true;
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      stopListening();
      settle();
    };
    const fail = (error: unknown): void => {
      end(() => {
        reject(error instanceof Error ? error : new HypervisorError("failed", String(error)));
      });
    };
    const onAbort = (): void => {
      fail(
        new HypervisorError("aborted", "the call was given up; it may still happen", {
          cause: signal.reason,
        }),
      );
    };
    if (life.over !== null) {
      fail(life.over);
    } else if (signal.aborted) {
      onAbort();
    } else {
      signal.addEventListener("abort", onAbort, { once: true });
      stopListening = life.onEnd(fail);
      if (timeoutMs !== null)
        timer = setTimeout(() => {
          fail(timedOut(timeoutMs));
        }, timeoutMs);
      work(() => over).then((value) => {
        end(() => {
          resolve(value);
        });
      }, fail);
    }
  });
}

/** Limits of a call, for withinLimits. */
export function limitsOf(life: SimLife, call: Call): Parameters<typeof withinLimits>[0] {
  return { life, signal: call.signal, timeoutMs: call.timeoutMs };
}

function timedOut(timeoutMs: number): HypervisorError {
  return new HypervisorError(
    "timeout",
    `the host did not answer within ${timeoutMs} ms; the call may still happen`,
  );
}
