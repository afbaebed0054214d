import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { execa } from "execa";
import { applyEdit, type Edit, type NamedTest } from "./mutant.ts";

/** Ignored by git, but needed by the tests. */
const GENERATED = "src/db/generated";
// A mutant may hang; more than any named test needs on a busy machine.
const MOST_MS_A_RUN = 300_000;

/** What came of named tests: each by its full name, and what the program wrote. */
export interface TestRun {
  readonly tests: readonly { readonly name: string; readonly passed: boolean; readonly why: string }[];
  readonly hung: boolean;
  readonly output: string;
}

/** A copy of the checkout as it stands, with what is not committed, in which sources can be changed. */
export interface Workspace {
  /** Runs `work` with these edits in place. Throws where one does not apply. */
  withEdits<T>(edits: readonly Edit[], work: () => Promise<T>): Promise<T>;
  /** `bail` ends with the first test that fails. */
  run(tests: readonly NamedTest[], options?: { readonly bail: boolean }): Promise<TestRun>;
  remove(): Promise<void>;
}

interface Report {
  readonly testResults: readonly {
    readonly assertionResults: readonly {
      readonly fullName: string;
      readonly status: string;
      readonly failureMessages: readonly string[];
    }[];
  }[];
}

export async function createWorkspace(checkout: string): Promise<Workspace> {
  const root = await mkdtemp(join(tmpdir(), "drover-mutants-"));
  const listed = await execa("git", ["ls-files", "-z", "-co", "--exclude-standard"], { cwd: checkout });
  for (const file of new Set(listed.stdout.split("\0"))) if (file !== "") await copy(checkout, root, file);
  await copy(checkout, root, GENERATED);
  await symlink(join(checkout, "node_modules"), join(root, "node_modules"));
  return {
    async withEdits(edits, work) {
      const originals = new Map<string, string>();
      try {
        for (const edit of edits) {
          const path = join(root, edit.file);
          const text = await readFile(path, "utf8");
          if (!originals.has(path)) originals.set(path, text);
          await writeFile(path, applyEdit(text, edit));
        }
        return await work();
      } finally {
        for (const [path, text] of originals) await writeFile(path, text);
      }
    },
    run: (tests, { bail } = { bail: false }) => runTests(root, tests, bail),
    remove: () => rm(root, { recursive: true, force: true }),
  };
}

/** A file that git knows and that was deleted is left out. */
async function copy(from: string, to: string, file: string): Promise<void> {
  await mkdir(dirname(join(to, file)), { recursive: true });
  await cp(join(from, file), join(to, file), { recursive: true }).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  });
}

async function runTests(root: string, tests: readonly NamedTest[], bail: boolean): Promise<TestRun> {
  const report = join(root, "report.json");
  await rm(report, { force: true });
  const files = [...new Set(tests.map(({ file }) => file))];
  const titles = [...new Set(tests.map(({ title }) => title.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&")))];
  const args = ["run", "--config", ".config/vitest.config.ts", "--reporter=json", `--outputFile=${report}`];
  const result = await execa(
    join(root, "node_modules/.bin/vitest"),
    [...args, ...(bail ? ["--bail=1"] : []), "-t", titles.join("|"), ...files],
    { cwd: root, reject: false, all: true, timeout: MOST_MS_A_RUN, forceKillAfterDelay: 10_000 },
  );
  const { testResults } = await readReport(report);
  const ran = testResults.flatMap(({ assertionResults }) => assertionResults);
  return {
    tests: ran
      .filter(({ status }) => status === "passed" || status === "failed")
      .map(({ fullName, status, failureMessages }) => ({
        name: fullName,
        passed: status === "passed",
        why: failureMessages.join("\n"),
      })),
    hung: result.timedOut,
    output: result.all,
  };
}

async function readReport(path: string): Promise<Report> {
  try {
    return JSON.parse(await readFile(path, "utf8")) as Report;
  } catch {
    return { testResults: [] };
  }
}
