import type { Readable } from "node:stream";

/** Resolves when a stream has something to read; rejects with its error, its end or the signal's reason, destroyed. */
export async function firstByte(stream: Readable, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<undefined>();
  const onReadable = (): void => {
    if (stream.readableLength > 0) resolve(undefined);
  };
  const onEnd = (): void => {
    reject(new Error("the other side ended before it said anything"));
  };
  const onAbort = (): void => {
    reject(signal.reason instanceof Error ? signal.reason : new Error("given up", { cause: signal.reason }));
  };
  stream.on("readable", onReadable).once("error", reject).once("end", onEnd).once("close", onEnd);
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    await promise;
  } catch (error) {
    // What else it has to say about its end was told already.
    stream.on("error", () => undefined).destroy();
    throw error;
  } finally {
    stream.off("readable", onReadable).off("error", reject).off("end", onEnd).off("close", onEnd);
    signal.removeEventListener("abort", onAbort);
  }
}
