import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { it } from "vitest";
import type { Capability } from "../../../src/hypervisors/hypervisor.ts";
import type { DriverContract } from "./world.ts";

/** What a behaviour belongs to: an ability, or `required`: what every driver does. */
export type Ability = Capability | "required";

/** Registers one behaviour of an ability. Its name stands in the table of capabilities: keep it stable. */
export type Behaviour = (ability: Ability, name: string, test: () => Promise<void>) => void;

const RESULTS_DIR = new URL("../results/", import.meta.url);

/** Keeps which behaviours there are and which have passed. */
export class ContractRecord {
  readonly #contract: DriverContract;
  readonly #registered = new Map<Ability, string[]>();
  readonly #passed = new Map<Ability, Set<string>>();

  constructor(contract: DriverContract) {
    this.#contract = contract;
  }

  readonly behaviour: Behaviour = (ability, name, test) => {
    const names = this.#registered.get(ability) ?? [];
    if (names.includes(name)) throw new Error(`the behaviour "${name}" of ${ability} is there twice`);
    this.#registered.set(ability, [...names, name]);
    it(name, async () => {
      await test();
      this.#passed.set(ability, (this.#passed.get(ability) ?? new Set()).add(name));
    });
  };

  /** Abilities that have behaviours, every one of which has passed. */
  passed(): ReadonlySet<Ability> {
    const whole = [...this.#registered].filter(
      ([ability, names]) => this.#passed.get(ability)?.size === names.length,
    );
    return new Set(whole.map(([ability]) => ability));
  }

  /** Writes the results where every behaviour has passed; a part of a run writes nothing. */
  write(): void {
    if (this.passed().size < this.#registered.size) return;
    const { name, title, hypervisor, guestType, declared } = this.#contract;
    const passed = Object.fromEntries([...this.#registered].sort(([a], [b]) => a.localeCompare(b)));
    const text = `${JSON.stringify({ name, title, hypervisor, guestType, declared: [...declared].sort(), passed }, null, 2)}\n`;
    const file = new URL(`${name}.json`, RESULTS_DIR);
    mkdirSync(RESULTS_DIR, { recursive: true });
    if (readIfThere(file) !== text) writeFileSync(file, text);
  }
}

function readIfThere(file: URL): string | null {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return null;
    throw error;
  }
}
