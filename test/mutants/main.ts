import type { Mutant, NamedTest } from "./mutant.ts";
import { MUTANTS } from "./mutants.ts";
import { createWorkspace, type TestRun, type Workspace } from "./workspace.ts";

/**
 * Puts each mutant into a copy of the checkout and demands that its test fails: `main.ts [name…]`, all without
 * names. Exit status 1 when one survives or does not apply, or when a named test fails without any mutant.
 */

const AT_ONCE = 2;

interface Verdict {
  readonly mutant: Mutant;
  readonly what: "killed" | "survived" | "broken";
  readonly why: string;
  readonly seconds: number;
}

function namedTests({ test }: Mutant, run: TestRun): readonly { readonly passed: boolean }[] {
  return run.tests.filter(({ name }) => name.includes(withoutPlaceholders(test)));
}

/** A title as it stands in the file may hold placeholders of `it.each`; what is before them stays. */
function withoutPlaceholders({ title }: NamedTest): string {
  return title.split(/[%$]/)[0] ?? title;
}

async function judge(workspace: Workspace, mutant: Mutant): Promise<Verdict> {
  const begun = performance.now();
  const verdict = (what: Verdict["what"], why: string): Verdict => ({
    ...{ mutant, what, why },
    seconds: (performance.now() - begun) / 1000,
  });
  try {
    const run = await workspace.withEdits(mutant.edits, () => workspace.run([mutant.test], { bail: true }));
    if (run.hung) return verdict("killed", "it hung");
    const named = namedTests(mutant, run);
    // A file that does not even load says nothing about the test.
    if (named.length === 0) return verdict("broken", run.output.slice(-2000));
    return named.every(({ passed }) => passed) ? verdict("survived", "") : verdict("killed", "");
  } catch (error) {
    return verdict("broken", error instanceof Error ? error.message : String(error));
  }
}

/** The named tests must pass as the code is, else their failure would prove nothing. */
async function unmutatedFailures(workspace: Workspace, mutants: readonly Mutant[]): Promise<string[]> {
  const run = await workspace.run(mutants.map(({ test }) => test));
  const missing = mutants.filter((mutant) => namedTests(mutant, run).length === 0);
  return [
    ...run.tests
      .filter(({ passed }) => !passed)
      .map(({ name, why }) => `${name}: fails without any mutant\n${why}`),
    ...missing.map(({ test }) => `${test.file}: no test named "${test.title}" ran`),
    ...(run.tests.length === 0 ? [run.output.slice(-2000)] : []),
  ];
}

function line({ mutant, what, why, seconds }: Verdict): string {
  const columns = [what.padEnd(8), `${seconds.toFixed(0)} s`.padStart(5), mutant.name.padEnd(34)];
  return `${columns.join("  ")}  ${mutant.breaks}  [${mutant.test.file}]${why === "" ? "" : `\n${why}`}\n`;
}

function chosenMutants(names: readonly string[]): readonly Mutant[] {
  const unknown = names.filter((name) => !MUTANTS.some((mutant) => mutant.name === name));
  if (unknown.length > 0) throw new Error(`there is no mutant ${unknown.join(", ")}`);
  return names.length === 0 ? MUTANTS : MUTANTS.filter(({ name }) => names.includes(name));
}

async function main(): Promise<number> {
  const mutants = chosenMutants(process.argv.slice(2));
  const workspaces = await Promise.all(Array.from({ length: AT_ONCE }, () => createWorkspace(process.cwd())));
  try {
    const [first] = workspaces;
    const failures = first === undefined ? [] : await unmutatedFailures(first, mutants);
    if (failures.length > 0) {
      process.stdout.write(`The tests do not pass as the code is:\n${failures.join("\n")}\n`);
      return 1;
    }
    const left = [...mutants];
    const verdicts: Verdict[] = [];
    const work = async (workspace: Workspace): Promise<void> => {
      for (let mutant = left.shift(); mutant !== undefined; mutant = left.shift()) {
        const verdict = await judge(workspace, mutant);
        verdicts.push(verdict);
        process.stdout.write(line(verdict));
      }
    };
    await Promise.all(workspaces.map(work));
    const killed = verdicts.filter(({ what }) => what === "killed").length;
    process.stdout.write(`${killed} of ${verdicts.length} mutants killed\n`);
    return killed === verdicts.length ? 0 : 1;
  } finally {
    await Promise.all(workspaces.map((workspace) => workspace.remove()));
  }
}

process.exitCode = await main();
