// Which kernel modules to load, and in which order. Read from the modules themselves, as depmod does: a kernel that is
// only unpacked has no modules.dep.
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { run } from "../run-program.mjs";

const SUFFIX = /\.ko(\.xz|\.zst|\.gz)?$/;

/**
 * @param {Uint8Array} module contents of a .ko file
 * @returns {string[]} modules it needs, from its .modinfo section
 */
export function parseDepends(module) {
  const text = Buffer.from(module).toString("latin1");
  const found = /\0depends=([^\0]*)\0/.exec(text);
  return (found?.[1] ?? "").split(",").filter(Boolean).map(canonicalName);
}

/**
 * @param {readonly string[]} wanted
 * @param {ReadonlyMap<string, readonly string[]>} depends by module; a name that is absent is built into the kernel
 * @returns {string[]} the modules to load, each after those it needs
 */
export function loadOrder(wanted, depends) {
  /** @type {Set<string>} */
  const order = new Set();
  /** @type {(name: string) => void} */
  const visit = (name) => {
    const needed = depends.get(name);
    if (needed === undefined || order.has(name)) return;
    for (const other of needed) visit(other);
    order.add(name);
  };
  for (const name of wanted) visit(canonicalName(name));
  return [...order];
}

/**
 * @param {string} modulesDir lib/modules/VERSION of an unpacked kernel
 * @param {readonly string[]} wanted
 * @returns {Promise<{ name: string, content: Buffer }[]>} uncompressed modules in load order
 */
export async function collectModules(modulesDir, wanted) {
  /** @type {Map<string, string>} */
  const files = new Map();
  for (const file of readdirSync(modulesDir, { recursive: true, encoding: "utf8" })) {
    if (SUFFIX.test(file))
      files.set(canonicalName(basename(file).replace(SUFFIX, "")), join(modulesDir, file));
  }
  /** @type {Map<string, Buffer>} */
  const contents = new Map();
  /** @type {Map<string, string[]>} */
  const depends = new Map();
  const queue = wanted.map(canonicalName);
  for (const name of queue) {
    const file = files.get(name);
    if (file === undefined || contents.has(name)) continue;
    const content = await readModule(file);
    contents.set(name, content);
    depends.set(name, parseDepends(content));
    queue.push(...parseDepends(content));
  }
  return loadOrder(wanted, depends).flatMap((name) => {
    const content = contents.get(name);
    return content === undefined ? [] : [{ name, content }];
  });
}

/** @param {string} file */
async function readModule(file) {
  const compression = SUFFIX.exec(file)?.[1];
  if (compression === undefined) return readFileSync(file);
  const program = { ".xz": "xz", ".zst": "zstd", ".gz": "gzip" }[compression] ?? "gzip";
  const plain = file.replace(/\.[^.]+$/, "");
  await run(program, ["--decompress", "--force", "--keep", file]);
  return readFileSync(plain);
}

/**
 * The kernel takes "-" and "_" for the same in names of modules.
 * @param {string} name
 */
function canonicalName(name) {
  return name.replaceAll("-", "_");
}
