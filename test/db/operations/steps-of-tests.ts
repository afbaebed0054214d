import { HypervisorError } from "../../../src/hypervisors/hypervisor.ts";
import { asId, type HostId } from "../../../src/lib/ids.ts";
import type { JsonObject } from "../../../src/lib/json.ts";
import { type Step, step } from "../../../src/operations/operation-kind.ts";
import type { TestInput } from "./harness.ts";

/** Steps whose course a test decides while they run. */

export const onHost = async (_tx: unknown, input: TestInput): Promise<HostId | null> =>
  input.hostId === null ? null : asId<HostId>(input.hostId);

export class Gate {
  readonly #reached = Promise.withResolvers<undefined>();
  readonly #opened = Promise.withResolvers<undefined>();

  /** Resolves once somebody stands before the gate. */
  get reached(): Promise<unknown> {
    return this.#reached.promise;
  }

  open(): void {
    this.#opened.resolve(undefined);
  }

  /** Waits for the gate, or rejects when the signal aborts, as a call of a driver does. */
  async pass(signal?: AbortSignal): Promise<void> {
    this.#reached.resolve(undefined);
    const aborted = Promise.withResolvers<never>();
    const onAbort = (): void => {
      aborted.reject(new HypervisorError("aborted", "the call was aborted"));
    };
    if (signal?.aborted === true) onAbort();
    signal?.addEventListener("abort", onAbort, { once: true });
    await Promise.race([this.#opened.promise, aborted.promise]);
  }
}

/** A script for the operations of one test, by the operation's word: what each step's functions do. */
export interface Script {
  readonly find?: (attempt: number) => Promise<JsonObject>;
  readonly run?: (
    context: { readonly signal: AbortSignal; readonly beforeSend: () => void },
    attempt: number,
  ) => Promise<void>;
  readonly undo?: (attempt: number) => Promise<void>;
}

export class Scripts {
  /** `<word>/<step>:<what>` in the order in which it happened. */
  readonly log: string[] = [];
  readonly #scripts = new Map<string, Script>();
  readonly #attempts = new Map<string, number>();

  set(word: string, stepName: string, script: Script): void {
    this.#scripts.set(`${word}/${stepName}`, script);
  }

  /** Forgets all of it: the words of one test are not those of the next. */
  clear(): void {
    this.log.length = 0;
    this.#scripts.clear();
    this.#attempts.clear();
  }

  /** What happened for one operation. */
  of(word: string): string[] {
    return this.log.filter((line) => line.startsWith(`${word}/`)).map((line) => line.slice(word.length + 1));
  }

  step(name: string, more: Partial<Step<TestInput>> = {}): Step<TestInput> {
    return step<TestInput, JsonObject>({
      name,
      host: onHost,
      run: async ({ operation, signal, call }) => {
        const [script, attempt] = this.#enter(operation.input.word, name, "run");
        await script.run?.({ signal, beforeSend: call.beforeSend }, attempt);
        this.log.push(`${operation.input.word}/${name}:ran`);
        return undefined;
      },
      undo: async ({ operation }) => {
        const [script, attempt] = this.#enter(operation.input.word, name, "undo");
        await script.undo?.(attempt);
        this.log.push(`${operation.input.word}/${name}:undone`);
      },
      ...more,
    });
  }

  #enter(word: string, name: string, what: string): [Script, number] {
    const key = `${word}/${name}:${what}`;
    const attempt = (this.#attempts.get(key) ?? 0) + 1;
    this.#attempts.set(key, attempt);
    return [this.#scripts.get(`${word}/${name}`) ?? {}, attempt];
  }
}
