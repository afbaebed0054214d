import { setTimeout as sleep } from "node:timers/promises";
import { TOKEN } from "./crash-service.ts";

/** A request that queues an operation. */
export interface Change {
  readonly method: "POST" | "DELETE";
  readonly path: string;
  readonly body?: object;
}

export interface EndedOperation {
  readonly id: string;
  readonly kind: string;
  readonly state: string;
  readonly endedAt: string | null;
  readonly targets: readonly { readonly kind: string; readonly id: string }[];
}

/** A client of a service that comes and goes. Everything but `ask` throws for what is refused. */
export interface Caller {
  read(path: string): Promise<unknown>;
  /** Sends it once, as a client does whose service may die; the key makes it safe to send again. Returns the operation's id. */
  ask(change: Change, key: string): Promise<string>;
  /** Waits until an operation has ended. */
  ended(operationId: string): Promise<EndedOperation>;
  /** Sends it and waits for its success. */
  done(change: Change): Promise<void>;
  /** Makes what is there at once, without an operation. */
  make(path: string, body: object): Promise<void>;
  /** A delete that is done at once. */
  remove(path: string): Promise<void>;
}

const WAIT_SECONDS = 30;
const LONGEST_MS = 300_000;

export function callerOf(url: () => string): Caller {
  const send = async (
    change: { method: string; path: string; body?: object },
    key?: string,
  ): Promise<unknown> => {
    const answer = await fetch(`${url()}${change.path}`, {
      method: change.method,
      headers: {
        authorization: `Bearer ${TOKEN}`,
        ...(change.body === undefined ? {} : { "content-type": "application/json" }),
        ...(key === undefined ? {} : { "Idempotency-Key": key }),
      },
      ...(change.body === undefined ? {} : { body: JSON.stringify(change.body) }),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${change.method} ${change.path}: ${answer.status} ${text}`);
    return text === "" ? null : JSON.parse(text);
  };
  const read = (path: string): Promise<unknown> => send({ method: "GET", path });
  const ask = async (change: Change, key?: string): Promise<string> => {
    const { operation } = (await send(change, key)) as { readonly operation: { readonly id: string } };
    return operation.id;
  };
  const ended = async (operationId: string): Promise<EndedOperation> => {
    const until = performance.now() + LONGEST_MS;
    for (;;) {
      const path = `/v1/operations/${operationId}?wait=${WAIT_SECONDS}`;
      const operation = (await read(path)) as EndedOperation;
      if (operation.endedAt !== null) return operation;
      if (performance.now() > until) throw new Error(`it does not end: ${JSON.stringify(operation)}`);
      await sleep(10);
    }
  };
  return {
    ...{ read, ask, ended },
    async make(path, body) {
      await send({ method: "POST", path, body });
    },
    async remove(path) {
      await send({ method: "DELETE", path });
    },
    async done(change) {
      const operation = await ended(await ask(change));
      if (operation.state !== "succeeded") throw new Error(`${change.path}: ${JSON.stringify(operation)}`);
    },
  };
}
