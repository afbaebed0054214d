import type { Readable } from "node:stream";
import { DroverError, messageOf } from "../lib/errors.ts";
import { checkJson } from "./json-scan.ts";
import { MalformedRequest } from "./problem.ts";

export interface BodyLimits {
  readonly maxBytes: number;
  /** From the end of the headers to the end of the body. */
  readonly timeoutSeconds: number;
}

export const JSON_BODY_LIMITS: BodyLimits = { maxBytes: 1024 * 1024, timeoutSeconds: 30 };

/**
 * Reads a JSON body; undefined for an empty one. Throws MalformedRequest (broken JSON or UTF-8, duplicate keys, too
 * slow, broken off) or `payload_too_large`. `declaredBytes` is the Content-Length, where there is one.
 */
export async function readJsonBody(
  payload: Readable,
  declaredBytes: number | null,
  limits: BodyLimits,
): Promise<unknown> {
  if (declaredBytes !== null && declaredBytes > limits.maxBytes) throw tooLarge(limits);
  const bytes = await readAll(payload, limits);
  if (declaredBytes !== null && bytes.length !== declaredBytes) throw brokenOff();
  return bytes.length === 0 ? undefined : parseJson(bytes);
}

/** Listens instead of iterating: leaving a loop early would destroy the request, and with it the answer's socket. */
function readAll(payload: Readable, limits: BodyLimits): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const chunks: Buffer[] = [];
  let size = 0;
  const onData = (chunk: Buffer): void => {
    size += chunk.length;
    if (size > limits.maxBytes) reject(tooLarge(limits));
    else chunks.push(chunk);
  };
  const onEnd = (): void => {
    resolve(Buffer.concat(chunks));
  };
  const onBroken = (error?: Error): void => {
    reject(brokenOff(error));
  };
  const timer = setTimeout(() => {
    reject(tooSlow(limits));
  }, limits.timeoutSeconds * 1000);
  payload.on("data", onData).on("end", onEnd).on("error", onBroken).on("close", onBroken);
  return promise.finally(() => {
    clearTimeout(timer);
    payload.off("data", onData).off("end", onEnd).off("error", onBroken).off("close", onBroken);
  });
}

function parseJson(bytes: Buffer): unknown {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw new MalformedRequest("The body is not valid UTF-8.", { cause: error });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new MalformedRequest(`The body is not valid JSON: ${messageOf(error).slice(0, 200)}`, {
      cause: error,
    });
  }
  checkJson(text);
  return value;
}

function tooLarge({ maxBytes }: BodyLimits): DroverError {
  return new DroverError("payload_too_large", `The body is larger than ${maxBytes} bytes.`);
}

function tooSlow({ timeoutSeconds }: BodyLimits): MalformedRequest {
  const message = `The body did not arrive within ${timeoutSeconds} seconds.`;
  return new MalformedRequest(message, { status: 408, retry: "temporary" });
}

function brokenOff(cause?: unknown): MalformedRequest {
  return new MalformedRequest("The body ended before its Content-Length.", { cause });
}
