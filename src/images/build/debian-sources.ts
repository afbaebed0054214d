import { execa } from "execa";
import type { BuildRecipe } from "./build-recipe.ts";
import type { BuildTools } from "./build-tools.ts";
import { INDEX_FORMAT, type MachineMirrors, parseIndexTargets, parseProxies } from "./parse-apt-config.ts";

/** Where the packages of an image come from. */
export interface Sources {
  /** Lines of a sources.list, for the build and for the image. */
  readonly lines: readonly string[];
  /** Variables for apt: proxies. */
  readonly env: Readonly<Record<string, string>>;
}

const DEFAULTS = {
  debian: "http://deb.debian.org/debian/",
  security: "http://deb.debian.org/debian-security/",
};

/** They are mended in place: there are no updates beside them. */
const ROLLING: ReadonlySet<string> = new Set(["sid", "unstable"]);

/** The sources of a recipe, its mirror left out of account where it names none. Pure. */
export function sourceLines(
  { suite, mirror }: Pick<BuildRecipe, "suite" | "mirror">,
  machine: MachineMirrors,
  keyring: string,
): string[] {
  const line = (uri: string, name: string) => `deb [signed-by=${keyring}] ${uri} ${name} main`;
  if (mirror !== null) return [line(mirror, suite)];
  const debian = machine.debian ?? DEFAULTS.debian;
  if (ROLLING.has(suite)) return [line(debian, suite)];
  return [
    line(debian, suite),
    line(debian, `${suite}-updates`),
    line(machine.security ?? DEFAULTS.security, `${suite}-security`),
  ];
}

/** Asks this machine's apt for what the recipe leaves open. */
export async function findSources(recipe: BuildRecipe, tools: BuildTools): Promise<Sources> {
  if (recipe.mirror !== null)
    return { lines: sourceLines(recipe, { debian: null, security: null }, tools.keyring), env: {} };
  const targets = await askApt(tools, "apt-get", [
    "indextargets",
    "--format",
    INDEX_FORMAT,
    "Created-By: Packages",
  ]);
  const proxies = await askApt(tools, "apt-config", [
    "dump",
    "Acquire::http::Proxy",
    "Acquire::https::Proxy",
  ]);
  return {
    lines: sourceLines(recipe, parseIndexTargets(targets), tools.keyring),
    env: parseProxies(proxies),
  };
}

/** What apt says of itself; nothing where there is none, or it is not set up: then the defaults hold. */
async function askApt(tools: BuildTools, program: string, args: readonly string[]): Promise<string> {
  const { stdout, failed } = await execa(program, args, {
    reject: false,
    stdin: "ignore",
    timeout: 20_000,
    extendEnv: false,
    env: { PATH: tools.path, LC_ALL: "C" },
    cwd: "/",
  });
  return failed ? "" : stdout;
}
