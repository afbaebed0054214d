import { readdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname, extname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const TYPES: Readonly<Record<string, string>> = {
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".txt": "text/plain; charset=utf-8",
};

export interface Asset {
  readonly contentType: string;
  readonly content: Buffer;
}

/** The files that the pages load, by their path below the assets. They are read when they are asked for. */
export class ConsoleAssets {
  readonly #files: ReadonlyMap<string, string>;

  constructor(files: ReadonlyMap<string, string> = listFiles()) {
    this.#files = files;
  }

  get paths(): readonly string[] {
    return [...this.#files.keys()];
  }

  /** Null for anything that is not on the list, whatever it looks like. */
  async read(path: string): Promise<Asset | null> {
    const file = this.#files.get(path);
    if (file === undefined) return null;
    return { contentType: TYPES[extname(file)] ?? "application/octet-stream", content: await readFile(file) };
  }
}

/** Our own files, and those of the packages just as they were published. */
function listFiles(): ReadonlyMap<string, string> {
  const xterm = dirname(dirname(resolved("@xterm/xterm/lib/xterm.mjs")));
  const novnc = dirname(dirname(resolved("@novnc/novnc")));
  const pages = fileURLToPath(new URL("page/", import.meta.url));
  return new Map([
    ...["console.css", "connection.mjs", "serial.mjs", "vnc.mjs"].map(
      (name) => [`page/${name}`, join(pages, name)] as const,
    ),
    ["xterm/xterm.mjs", join(xterm, "lib/xterm.mjs")],
    ["xterm/xterm.css", join(xterm, "css/xterm.css")],
    ["xterm/addon-fit.mjs", resolved("@xterm/addon-fit/lib/addon-fit.mjs")],
    ["novnc/LICENSE.txt", join(novnc, "LICENSE.txt")],
    ...["core", "vendor"].flatMap((folder) => scriptsBelow(novnc, folder)),
  ]);
}

function scriptsBelow(root: string, folder: string): (readonly [string, string])[] {
  const entries = readdirSync(join(root, folder), { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && entry.name.endsWith(".js"))
    .map((entry) => join(entry.parentPath, entry.name))
    .map((file) => [`novnc/${relative(root, file)}`, file] as const);
}

function resolved(specifier: string): string {
  return fileURLToPath(import.meta.resolve(specifier));
}
