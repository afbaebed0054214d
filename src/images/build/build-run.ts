import type { BuildLog } from "./build-logs.ts";
import type { BuildTools } from "./build-tools.ts";
import { explainFailure } from "./parse-build-output.ts";
import { runConfined } from "./run-confined.ts";

export interface ProgramOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string;
  readonly onLine?: (line: string) => void;
}

/** What the parts of a build share: where, until when, and where its programs' words go. */
export interface BuildRun {
  /** Empty at first; everything of the build stays in it. */
  readonly directory: string;
  readonly signal: AbortSignal;
  readonly log: BuildLog;
  /** Runs a program to its end, and returns its last lines. @throws {DroverError} that explains its failure. */
  program(name: string, args: readonly string[], options?: ProgramOptions): Promise<readonly string[]>;
}

export function createBuildRun(
  tools: BuildTools,
  { directory, signal, log }: Pick<BuildRun, "directory" | "signal" | "log">,
): BuildRun {
  return {
    ...{ directory, signal, log },
    async program(name, args, { env = {}, input, onLine } = {}) {
      log.write(`$ ${[name, ...args].join(" ")}`);
      const { exitCode, tail } = await runConfined({
        ...{ tools, args, env, signal },
        program: name,
        cwd: directory,
        ...(input === undefined ? {} : { input }),
        onLine: (line) => {
          log.write(line);
          onLine?.(line);
        },
      });
      if (exitCode !== 0) throw explainFailure(name, tail);
      return tail;
    },
  };
}
