// Cgroups of a private libvirt: its own subtree of each hierarchy, so that the groups libvirt makes for its domains
// collide with nobody's and can be removed without asking anybody.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const ROOT = "/sys/fs/cgroup";
const VERSION_1_CONTROLLERS = ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio"];

/**
 * @typedef {object} Cgroups
 * @property {1 | 2 | "none"} version
 * @property {readonly string[]} birthDirs what process 1 joins before it makes its namespace: the root seen inside
 * @property {readonly string[]} dirs what every process inside joins
 */

/** @type {Cgroups} */
const NO_CGROUPS = { version: "none", birthDirs: [], dirs: [] };

/**
 * Makes the cgroups.
 * @param {string} name unique on the machine
 * @returns {Cgroups} version "none" where the machine has no cgroups we may use
 */
export function makeCgroups(name) {
  if (existsSync(join(ROOT, "cgroup.controllers"))) {
    const dir = join(ROOT, name);
    return attempt(() => {
      mkdirSync(dir);
    })
      ? { version: 2, birthDirs: [dir], dirs: [join(dir, "daemons")] }
      : NO_CGROUPS;
  }
  /** @type {string[]} */
  const dirs = [];
  for (const controller of VERSION_1_CONTROLLERS) {
    const parent = join(ROOT, controller);
    const dir = join(parent, name);
    if (
      !existsSync(join(parent, "cgroup.procs")) ||
      !attempt(() => {
        mkdirSync(dir);
      })
    )
      continue;
    // A new cpuset is empty and takes no process until it has CPUs and memory nodes.
    if (controller === "cpuset")
      for (const file of ["cpuset.cpus", "cpuset.mems"]) copyFileText(parent, dir, file);
    dirs.push(dir);
  }
  return dirs.length > 0 ? { version: 1, birthDirs: dirs, dirs } : NO_CGROUPS;
}

/**
 * Moves the first processes to where they stay. In version 2 a group that hands controllers down may hold no process
 * itself: libvirt makes its groups below the root seen inside, its daemons live in a leaf.
 * @param {Cgroups} cgroups
 * @param {readonly number[]} pids
 * @returns {Cgroups} version "none" where the machine does not let us
 */
export function settleCgroups(cgroups, pids) {
  const [root] = cgroups.birthDirs;
  const [leaf] = cgroups.dirs;
  if (cgroups.version !== 2 || root === undefined || leaf === undefined) return cgroups;
  const settled = attempt(() => {
    mkdirSync(leaf);
    for (const pid of pids) writeFileSync(join(leaf, "cgroup.procs"), String(pid));
    const controllers = readFileSync(join(root, "cgroup.controllers"), "utf8").split(/\s+/).filter(Boolean);
    writeFileSync(
      join(root, "cgroup.subtree_control"),
      controllers.map((controller) => `+${controller}`).join(" "),
    );
  });
  return settled ? cgroups : NO_CGROUPS;
}

/**
 * @param {string} from
 * @param {string} to
 * @param {string} file
 */
function copyFileText(from, to, file) {
  writeFileSync(join(to, file), readFileSync(join(from, file), "utf8").trim());
}

/**
 * The commands which take the machine's cgroups out of a mount namespace. Covering them would not do: libvirt reads the
 * list of mounts, and takes cgroups for absent, and works without, only when none is there.
 * @returns {string[][]} argument vectors, program first
 */
export function hideCgroupCommands() {
  const mounted = readFileSync("/proc/self/mounts", "utf8").includes(` ${ROOT} `);
  return mounted ? [["umount", "--recursive", "--lazy", ROOT]] : [];
}

/**
 * The commands which show these cgroups to the inside of a namespace.
 * @param {Cgroups} cgroups
 * @returns {string[][]} argument vectors, program first
 */
export function cgroupCommands(cgroups) {
  switch (cgroups.version) {
    case "none":
      return [];
    case 1:
      return [
        ["mount", "-t", "tmpfs", "tmpfs", ROOT],
        ...cgroups.dirs.flatMap((dir) => version1Commands(dir.split("/").at(-2) ?? "")),
      ];
    case 2:
      return [["mount", "-t", "cgroup2", "cgroup2", ROOT]];
  }
}

/** @param {string} controller */
function version1Commands(controller) {
  const dir = join(ROOT, controller);
  return [
    ["mkdir", dir],
    ["mount", "-t", "cgroup", "-o", controller, "cgroup", dir],
  ];
}

/**
 * Removes the cgroups of that name and what libvirt made below.
 * @param {string} name
 * @returns {boolean} false while a process is left in one
 */
export function removeCgroups(name) {
  return parents()
    .map((parent) => removeTree(join(parent, name)))
    .every(Boolean);
}

/**
 * @param {string} prefix
 * @returns {string[]} names of cgroups that begin so
 */
export function findCgroups(prefix) {
  const names = parents().flatMap((parent) => (existsSync(parent) ? readdirSync(parent) : []));
  return [...new Set(names.filter((name) => name.startsWith(prefix)))];
}

function parents() {
  return [ROOT, ...VERSION_1_CONTROLLERS.map((controller) => join(ROOT, controller))];
}

/**
 * @param {string} dir
 * @returns {boolean}
 */
function removeTree(dir) {
  if (!existsSync(dir)) return true;
  for (const entry of readdirSync(dir, { withFileTypes: true }))
    if (entry.isDirectory()) removeTree(join(dir, entry.name));
  return attempt(() => {
    rmdirSync(dir);
  });
}

/**
 * @param {() => void} action
 * @returns {boolean} whether it worked; without cgroups libvirt works too, so a refusal is an answer
 */
function attempt(action) {
  try {
    action();
    return true;
  } catch {
    return false;
  }
}
