import { randomUUID } from "node:crypto";
import { access, mkdir, statfs } from "node:fs/promises";
import path from "node:path";
import { DroverError } from "../../lib/errors.ts";
import { GIB } from "../../lib/units.ts";
import { bootstrap, type DebianTree } from "./bootstrap.ts";
import { type BuildDirectories, createBuildDirectories } from "./build-directory.ts";
import { type BuildLogs, createBuildLogs } from "./build-logs.ts";
import type { BuildRecipe } from "./build-recipe.ts";
import { createBuildRun } from "./build-run.ts";
import { type BuildTools, requireBuildTools } from "./build-tools.ts";
import { findSources, type Sources } from "./debian-sources.ts";
import { makeDisk } from "./make-disk.ts";
import { type GuardOptions, startMirrorProxy } from "./mirror-proxy.ts";

/** Which build, and how it is told to stop. */
export interface BuildCall {
  readonly operationId: string;
  readonly imageId: string;
  readonly recipe: BuildRecipe;
  readonly signal: AbortSignal;
  readonly onProgress: (done: number, total: number) => void;
}

/** Builds disks of Debian. A part that was made by another process, or is not there any more, is made again. */
export interface ImageBuilder {
  /** Throws DroverError `capability_unsupported`, with what to install, where images cannot be built. */
  check(): Promise<void>;
  /** Installs Debian into a directory, anew. */
  bootstrap(call: BuildCall): Promise<void>;
  /** Makes a disk of it. */
  makeDisk(call: BuildCall): Promise<void>;
  /** The path of the disk. */
  disk(call: BuildCall): Promise<string>;
  /** Removes everything of the build but its log. */
  clear(operationId: string): Promise<void>;
  readonly directories: BuildDirectories;
  readonly logs: BuildLogs;
}

export interface BuilderOptions extends GuardOptions {
  /** Of the images. Builds and logs have folders of their own there. */
  readonly directory: string;
  readonly tools: BuildTools;
  /** Space that must stay free on the disk. */
  readonly reserveBytes: number;
}

/** What a build of a small image takes while it is made: its files twice, and the image. */
const SPACE_BYTES = 3 * GIB;

interface Progressed {
  readonly directory: string;
  readonly tree?: DebianTree;
  readonly disk?: string;
}

export function createImageBuilder(options: BuilderOptions): ImageBuilder {
  return new Builder(options);
}

class Builder implements ImageBuilder {
  readonly directories: BuildDirectories;
  readonly logs: BuildLogs;
  readonly #options: BuilderOptions;
  readonly #builds: string;
  /** What this process has made, by operation: only that is trusted. */
  readonly #made = new Map<string, Progressed>();

  constructor(options: BuilderOptions) {
    this.#options = options;
    this.#builds = path.join(options.directory, "builds");
    this.directories = createBuildDirectories(this.#builds, options.tools);
    this.logs = createBuildLogs(path.join(options.directory, "build-logs"));
  }

  check(): Promise<void> {
    return requireBuildTools(this.#options.tools);
  }

  async bootstrap(call: BuildCall): Promise<void> {
    const { operationId, recipe, signal } = call;
    this.#made.delete(operationId);
    await this.check();
    await this.#requireSpace();
    const directory = await this.directories.make(operationId);
    const sources = await findSources(recipe, this.#options.tools);
    const tree = await this.#logged(call, directory, async (run) => {
      run.log.write(`${new Date().toISOString()} Debian ${recipe.suite} from:`);
      for (const line of sources.lines) run.log.write(`  ${line}`);
      return await this.#guarded(recipe, sources, signal, (env) =>
        bootstrap(run, {
          ...{ recipe, env, onProgress: call.onProgress },
          sources: sources.lines,
          rootUuid: randomUUID(),
        }),
      );
    });
    this.#made.set(operationId, { directory, tree });
  }

  async makeDisk(call: BuildCall): Promise<void> {
    const { directory, tree } = await this.#withTree(call);
    const disk = await this.#logged(call, directory, (run) => makeDisk(run, tree, call.recipe.sizeGib));
    this.#made.set(call.operationId, { directory, tree, disk });
  }

  async disk(call: BuildCall): Promise<string> {
    const made = await this.#stillThere(call.operationId);
    if (made?.disk !== undefined) return made.disk;
    await this.makeDisk(call);
    const { disk } = this.#made.get(call.operationId) ?? {};
    if (disk === undefined) throw new Error("a disk was made and is not known");
    return disk;
  }

  async clear(operationId: string): Promise<void> {
    this.#made.delete(operationId);
    await this.directories.clear(operationId);
  }

  async #withTree(call: BuildCall): Promise<{ directory: string; tree: DebianTree }> {
    const made = await this.#stillThere(call.operationId);
    // A disk that was begun is in the way of another.
    if (
      made?.tree !== undefined &&
      made.disk === undefined &&
      !(await isThere(path.join(made.directory, "disk.raw")))
    )
      return { directory: made.directory, tree: made.tree };
    await this.bootstrap(call);
    return await this.#withTree(call);
  }

  /** Another worker that had the operation meanwhile has removed it. */
  async #stillThere(operationId: string): Promise<Progressed | null> {
    const made = this.#made.get(operationId);
    return made !== undefined && (await isThere(made.directory)) ? made : null;
  }

  async #logged<T>(
    { imageId, signal }: BuildCall,
    directory: string,
    work: (run: ReturnType<typeof createBuildRun>) => Promise<T>,
  ): Promise<T> {
    const log = this.logs.open(imageId);
    try {
      return await work(createBuildRun(this.#options.tools, { directory, signal, log }));
    } catch (error) {
      log.write(
        signal.aborted ? "stopped" : `failed: ${error instanceof Error ? error.message : String(error)}`,
      );
      throw error;
    } finally {
      await log.close();
    }
  }

  /** A mirror that a client named is reached only through the guard of addresses. */
  async #guarded<T>(
    { mirror }: BuildRecipe,
    sources: Sources,
    signal: AbortSignal,
    work: (env: Readonly<Record<string, string>>) => Promise<T>,
  ): Promise<T> {
    if (mirror === null) return await work(sources.env);
    const proxy = await startMirrorProxy(this.#options, signal);
    try {
      return await work(proxy.env);
    } catch (error) {
      throw signal.aborted ? error : (proxy.refusal() ?? error);
    } finally {
      await proxy.close();
    }
  }

  async #requireSpace(): Promise<void> {
    await mkdir(this.#builds, { recursive: true, mode: 0o700 });
    const { bavail, bsize } = await statfs(this.#builds);
    const { reserveBytes } = this.#options;
    if (bavail * bsize - reserveBytes >= SPACE_BYTES) return;
    throw new DroverError(
      "storage_full",
      `A build takes ${SPACE_BYTES} bytes of the image store's disk; ${bavail * bsize} are free, and ${reserveBytes} of ` +
        "them are kept for the service. Delete images that are not needed, or ask the operator for a larger disk.",
    );
  }
}

async function isThere(file: string): Promise<boolean> {
  return await access(file).then(
    () => true,
    () => false,
  );
}
