import type { Readable } from "node:stream";
import { MalformedRequest } from "../http/problem.ts";
import { DroverError } from "../lib/errors.ts";

/** The body of an upload as it comes in. Its connection outlives an early refusal, so that the client reads it. */

export interface UploadOptions {
  /** How long a client may send nothing, in seconds. */
  readonly idleSeconds: number;
  /** Aborts when the client is gone or the service stops. */
  readonly signal: AbortSignal;
}

/**
 * The parts of a body. Ending the loop early leaves the connection alone.
 * @throws {DroverError} when it breaks off (400), when nothing comes (408), and `unavailable` when the service stops.
 */
export async function* readUpload(upload: Readable, options: UploadOptions): AsyncGenerator<Uint8Array> {
  const parts = upload.iterator({ destroyOnReturn: false })[Symbol.asyncIterator]();
  try {
    for (;;) {
      const part = await nextPart(parts, upload, options);
      if (part.done === true) return;
      yield part.value as Uint8Array;
    }
  } finally {
    // Lets go of the stream, so that it can be drained. Not awaited: it would wait for a part that never comes.
    void parts.return?.();
  }
}

/** One part, or the reason why none comes. A promise of its own for each, for a long-lived one would gather memory. */
async function nextPart(
  parts: AsyncIterator<unknown>,
  upload: Readable,
  { idleSeconds, signal }: UploadOptions,
): Promise<IteratorResult<unknown>> {
  return await new Promise((resolve, reject) => {
    const settle = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", aborted);
    };
    const timer = setTimeout(() => {
      settle();
      reject(silent(idleSeconds));
    }, idleSeconds * 1000);
    const aborted = () => {
      settle();
      reject(upload.readableAborted || upload.destroyed ? brokenOff() : stopping());
    };
    signal.addEventListener("abort", aborted);
    if (signal.aborted) {
      aborted();
      return;
    }
    parts.next().then(
      (part) => {
        settle();
        resolve(part);
      },
      (error: unknown) => {
        settle();
        reject(brokenOff(error));
      },
    );
  });
}

// Bounds of what is read of a refused body, for a client that sends all before it reads.
const DRAIN_BYTES = 64 * 1024 * 1024;
const DRAIN_MS = 10_000;
const DRAIN_IDLE_MS = 1_000;

/**
 * Throws away what is left of a refused body. Closing the connection while there is something unread resets it, and
 * the client loses the answer that says why. Where the connection stays open, the answer need not wait for this.
 * Resolves when the body has ended, or with false when it goes beyond the bounds. Never rejects.
 */
export async function drainUpload(upload: Readable): Promise<boolean> {
  if (upload.readableEnded || upload.destroyed) return true;
  return await new Promise((resolve) => {
    let left = DRAIN_BYTES;
    const settle = (ended: boolean) => {
      clearTimeout(whole);
      clearTimeout(idle);
      resolve(ended);
    };
    const whole = setTimeout(settle, DRAIN_MS, false);
    const idle = setTimeout(settle, DRAIN_IDLE_MS, false);
    upload.on("data", (chunk: Uint8Array) => {
      left -= chunk.length;
      if (left < 0) settle(false);
      else idle.refresh();
    });
    for (const event of ["end", "close", "error"]) {
      upload.once(event, () => {
        settle(true);
      });
    }
    upload.resume();
  });
}

function brokenOff(cause?: unknown): DroverError {
  return new MalformedRequest("The upload broke off before its end. Nothing of it was kept; send it again.", {
    cause,
    retry: "temporary",
  });
}

function silent(seconds: number): DroverError {
  return new MalformedRequest(
    `Nothing of the upload came for ${seconds} seconds. Nothing of it was kept; send it again.`,
    { status: 408, retry: "temporary" },
  );
}

function stopping(): DroverError {
  return new DroverError(
    "unavailable",
    "The service is stopping. Nothing of the upload was kept; send it again.",
    {
      retryAfterSeconds: 5,
    },
  );
}
