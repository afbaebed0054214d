import { HypervisorError } from "./hypervisor.ts";

/**
 * Passes a source's chunks on. Throws when it gives another amount than was said, and the signal's reason when that
 * ends, though the source may never give anything again.
 */
export async function* exactly(
  source: AsyncIterable<Uint8Array>,
  sizeBytes: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const iterator = source[Symbol.asyncIterator]();
  const ended = whenAborted(signal);
  let given = 0;
  let isDone = false;
  try {
    for (;;) {
      const next = await Promise.race([iterator.next(), ended.promise]);
      if (next.done === true) {
        isDone = true;
        break;
      }
      given += next.value.byteLength;
      if (given > sizeBytes) throw wrongAmount(sizeBytes, "more than that");
      yield next.value;
    }
    if (given < sizeBytes) throw wrongAmount(sizeBytes, `${given} bytes`);
  } finally {
    ended.forget();
    if (!isDone) giveUp(iterator);
  }
}

/** Tells a source that nobody listens any more. One that stalls may never answer, so nobody waits for it. */
function giveUp(iterator: AsyncIterator<Uint8Array>): void {
  iterator.return?.().catch(() => undefined);
}

function whenAborted(signal: AbortSignal): { readonly promise: Promise<never>; readonly forget: () => void } {
  const { promise, reject } = Promise.withResolvers<never>();
  // Whoever waits hears of it by the race; where nobody does, it is nobody's error.
  promise.catch(() => undefined);
  const onAbort = (): void => {
    const reason: unknown = signal.reason;
    reject(reason instanceof Error ? reason : new Error("the upload was aborted", { cause: reason }));
  };
  if (signal.aborted) onAbort();
  else signal.addEventListener("abort", onAbort, { once: true });
  return {
    promise,
    forget: () => {
      signal.removeEventListener("abort", onAbort);
    },
  };
}

function wrongAmount(sizeBytes: number, got: string): HypervisorError {
  return new HypervisorError(
    "invalid-spec",
    `the upload was announced with ${sizeBytes} bytes, but its source gave ${got}`,
  );
}
