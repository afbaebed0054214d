import { mkdir, readdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { DroverError } from "../../lib/errors.ts";
import type { BuildRecipe } from "./build-recipe.ts";
import type { BuildRun } from "./build-run.ts";
import {
  BASE_PACKAGES,
  CLOUD_PACKAGES,
  GRUB_ANSWERS,
  GRUB_CORE_ARGS,
  guestFiles,
  kernelVersionIn,
  LEFTOVERS,
} from "./guest-config.ts";
import { countPackages } from "./parse-build-output.ts";

/** A Debian tree with everything in it that a guest needs, GRUB's core among it. */
export interface DebianTree {
  readonly root: string;
  readonly rootUuid: string;
}

export interface BootstrapOptions {
  readonly recipe: BuildRecipe;
  readonly sources: readonly string[];
  /** Proxies for apt. */
  readonly env: Readonly<Record<string, string>>;
  /** Of the root file system that is to be made. */
  readonly rootUuid: string;
  /** In packages that are set up. */
  readonly onProgress: (done: number, total: number) => void;
}

/** What GRUB's core is called in a tree, and its first stage. */
export const GRUB_CORE = "boot/grub/i386-pc/core.img";
export const GRUB_BOOT_CODE = "usr/lib/grub/i386-pc/boot.img";

/** Installs Debian into an empty directory. @throws {DroverError} that says what went wrong. */
export async function bootstrap(run: BuildRun, options: BootstrapOptions): Promise<DebianTree> {
  const root = path.join(run.directory, "root");
  await installPackages(run, root, options);
  await installLoader(run, root);
  await putFiles(run, root, options);
  return { root, rootUuid: options.rootUuid };
}

async function installPackages(
  run: BuildRun,
  root: string,
  { recipe, sources, env, onProgress }: BootstrapOptions,
): Promise<void> {
  const temporary = path.join(run.directory, "tmp");
  await mkdir(temporary);
  const packages = [...BASE_PACKAGES, ...(recipe.cloudInit ? CLOUD_PACKAGES : []), ...recipe.packages];
  let count = { done: 0, total: 0 };
  await run.program(
    "mmdebstrap",
    [
      ...["--verbose", "--mode=root", "--variant=apt", "--format=directory", "--architectures=amd64"],
      `--include=${[...new Set(packages)].join(",")}`,
      ...["--", recipe.suite, root, ...sources],
    ],
    {
      env: { ...env, TMPDIR: temporary, HOME: temporary },
      onLine: (line) => {
        const next = countPackages(line, count);
        if (next === count) return;
        count = next;
        onProgress(count.done, count.total);
      },
    },
  );
}

/** GRUB of the tree's own release: its modules, and its core, which loads them from there. */
async function installLoader(run: BuildRun, root: string): Promise<void> {
  await run.program("chroot", [root, "debconf-set-selections"], { input: GRUB_ANSWERS });
  const modules = path.join(root, path.dirname(GRUB_CORE));
  await run.program("cp", ["-a", "--", path.join(root, path.dirname(GRUB_BOOT_CODE)), modules]);
  await run.program("chroot", [root, "grub-mkimage", "-o", `/${GRUB_CORE}`, ...GRUB_CORE_ARGS]);
}

async function putFiles(run: BuildRun, root: string, { recipe, rootUuid }: BootstrapOptions): Promise<void> {
  const kernelVersion = kernelVersionIn(await readdir(path.join(root, "boot")));
  if (kernelVersion === null)
    throw new DroverError("image_build_failed", "No kernel was installed; the image's log says more.");
  const keys = (await readdir(path.join(root, "etc/ssh")).catch(() => [])).filter((name) =>
    name.startsWith("ssh_host_"),
  );
  const leftovers = [...LEFTOVERS, ...keys.map((name) => `etc/ssh/${name}`)];
  await run.program("rm", ["-f", "--", ...leftovers.map((name) => path.join(root, name))]);
  const overlay = path.join(run.directory, "files");
  for (const file of guestFiles({ rootUuid, kernelVersion, cloudInit: recipe.cloudInit })) {
    const target = path.join(overlay, file.path);
    await mkdir(path.dirname(target), { recursive: true, mode: 0o755 });
    await writeFile(target, file.content, { mode: file.isProgram === true ? 0o755 : 0o644 });
  }
  // Without following links of the tree, and as its root.
  await run.program("cp", ["-a", "--remove-destination", "--no-target-directory", "--", overlay, root]);
  await run.program("chroot", [root, "systemctl", "enable", "systemd-networkd.service"]);
}
