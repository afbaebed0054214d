import { HypervisorError } from "../../../../src/hypervisors/hypervisor.ts";
import { DroverError } from "../../../../src/lib/errors.ts";
import type { HostId, OperationId } from "../../../../src/lib/ids.ts";
import type { OperationKind, Step, StepContext } from "../../../../src/operations/operation-kind.ts";
import { step } from "../../../../src/operations/operation-kind.ts";
import { type TestInput, testKind } from "../harness.ts";
import {
  conflict,
  type Gate,
  type KindName,
  MAX_ATTEMPTS,
  type Outcome,
  RANKS,
  type Spec,
} from "./engine-model.ts";

/** The fake hosts of the model test: calls hang there until a command answers them, and effects outlive workers. */

export interface PendingCall extends Gate {
  readonly key: number;
  readonly operationId: OperationId;
  /** Its worker has lost the right to it: whatever it tries from now on must be refused. */
  zombie: boolean;
  /** The effect takes place; the answer is still on its way. */
  act(): void;
  answer(outcome: Outcome): void;
}

type Found = { readonly look: number };
type Context = StepContext<TestInput>;

const STEP_NAMES = ["first", "second", "third"] as const;

/** What an operation's input tells the world; `hosts` are indexes. */
interface Word extends Spec {
  readonly key: number;
}

export class World {
  readonly hosts: HostId[] = [];
  readonly calls: PendingCall[] = [];
  readonly violations: string[] = [];
  /** Calls that began since the last look. */
  readonly entered: (Gate & { readonly key: number })[] = [];
  readonly #effects = new Map<string, { lies: boolean; done: number; undone: number }>();
  readonly #found = new Map<string, number>();
  #looks = 0;

  /** How often each step acted and was taken back. */
  effect(
    key: number,
    position: number,
  ): { readonly lies: boolean; readonly done: number; readonly undone: number } {
    return this.#effects.get(`${key}/${position}`) ?? { lies: false, done: 0, undone: 0 };
  }

  callOf(key: number): PendingCall | undefined {
    return this.calls.find((call) => call.key === key && !call.zombie);
  }

  kinds(): Readonly<Record<KindName, OperationKind<TestInput>>> {
    return { change: this.#kind("change"), stop: this.#kind("stop"), delete: this.#kind("delete") };
  }

  #kind(name: KindName): OperationKind<TestInput> {
    const rank = RANKS[name];
    return testKind(`model.${name}`, {
      steps: STEP_NAMES.map((_, position) => this.#step(position, rank === 0)),
      forwardOnly: rank > 0,
      overtakes: rank === 2 ? "all" : rank === 1,
      admit: async (_tx, operation) => {
        const { admit } = wordOf(operation.input);
        if (admit === "refuse") return { kind: "refuse", error: new DroverError("invalid_state", "not now") };
        return { kind: admit };
      },
      onEnd: async (tx, operation) => {
        await tx.$executeRaw`
          INSERT INTO model_record (operation_id, what) VALUES (${operation.id}::uuid, 'ended')`;
      },
    });
  }

  #step(position: number, undoes: boolean): Step<TestInput> {
    const name = STEP_NAMES[position] ?? "";
    return step<TestInput, Found>({
      name,
      maxAttempts: MAX_ATTEMPTS,
      timeoutSeconds: 600,
      host: async (_tx, input) => this.hosts[wordOf(input).hosts[position] ?? -1] ?? null,
      skip: (input) => position >= wordOf(input).hosts.length,
      find: async (context) => this.#look(context, position),
      run: async (context) => {
        await this.#call(context, { step: position, direction: "forward" }, context.found);
        return { position };
      },
      // The second step commits something with its record, the others take the shorter way.
      ...(position === 1
        ? {
            record: async (tx, operation) => {
              await tx.$executeRaw`
                INSERT INTO model_record (operation_id, what) VALUES (${operation.id}::uuid, 'recorded')`;
            },
          }
        : {}),
      ...(undoes
        ? {
            undo: async (context) => {
              await this.#call(context, { step: position, direction: "backward" }, context.found);
            },
          }
        : {}),
    });
  }

  #look({ operation }: Context, position: number): Found {
    const { key } = wordOf(operation.input);
    if (this.effect(key, position).done > 0)
      this.violations.push(`${key}/${position} looked after it had acted`);
    const look = ++this.#looks;
    this.#found.set(`${key}/${position}`, look);
    return { look };
  }

  async #call(context: Context, gate: Gate, found: Found | null): Promise<void> {
    const word = wordOf(context.operation.input);
    const name = `${word.key}/${gate.step}`;
    if (found?.look !== this.#found.get(name)) this.violations.push(`${name} does not know what it found`);
    for (const other of this.calls)
      if (!other.zombie && (other.key === word.key || conflict(word, this.#specs.get(other.key) ?? word)))
        this.violations.push(
          `${name} ${gate.direction} acts beside ${other.key}/${other.step} ${other.direction}`,
        );
    this.#specs.set(word.key, word);
    this.entered.push({ key: word.key, ...gate });
    const answered = Promise.withResolvers<undefined>();
    let acted = false;
    const call: PendingCall = {
      ...gate,
      key: word.key,
      operationId: context.operation.id,
      zombie: false,
      act: () => {
        context.call.beforeSend();
        if (!acted) this.#act(context, name, gate);
        acted = true;
      },
      answer: (outcome) => {
        if (outcome === "success") answered.resolve(undefined);
        else answered.reject(errorOf(outcome));
      },
    };
    const onAbort = (): void => {
      answered.reject(new HypervisorError("aborted", "the call was aborted"));
    };
    this.calls.push(call);
    context.signal.addEventListener("abort", onAbort, { once: true });
    try {
      await answered.promise;
    } finally {
      context.signal.removeEventListener("abort", onAbort);
      this.calls.splice(this.calls.indexOf(call), 1);
    }
  }

  readonly #specs = new Map<number, Spec>();

  #act({ resumed }: Context, name: string, { direction }: Gate): void {
    const effect = this.#effects.get(name) ?? { lies: false, done: 0, undone: 0 };
    this.#effects.set(name, effect);
    if (direction === "backward") {
      if (effect.lies) effect.undone++;
      effect.lies = false;
      return;
    }
    if (effect.lies && !resumed) this.violations.push(`${name} was not told that it may have run before`);
    if (!effect.lies) effect.done++;
    effect.lies = true;
  }
}

function wordOf(input: TestInput): Word {
  return JSON.parse(input.word) as Word;
}

function errorOf(outcome: Exclude<Outcome, "success">): Error {
  switch (outcome) {
    case "retryable":
      return new HypervisorError("failed", "try again", { retryable: true });
    case "final":
      return new HypervisorError("invalid-spec", "never");
    case "unreachable":
      return new HypervisorError("unreachable", "the host went silent");
    case "refused":
      return new DroverError("invalid_state", "refused on purpose");
  }
}
