import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** CPU time used up to now, in milliseconds. */
export interface CpuTime {
  /** The main thread of this process: API and worker, without the load's own thread. */
  readonly service: number;
  /** The embedded server with all its processes. */
  readonly postgres: number;
}

// USER_HZ of Linux on every platform that Node supports.
const TICK_MS = 10;

export function cpuTime(dataDir: string): CpuTime {
  const { user, system } = process.threadCpuUsage();
  const postmaster = postmasterPid(dataDir);
  return {
    service: (user + system) / 1000,
    postgres: postmaster === null ? 0 : treeTime(postmaster),
  };
}

function postmasterPid(dataDir: string): number | null {
  const file = readdirSync(dataDir, { recursive: true, encoding: "utf8" }).find((name) =>
    name.endsWith("postmaster.pid"),
  );
  if (file === undefined) return null;
  return Number(readFileSync(join(dataDir, file), "utf8").split("\n")[0]);
}

/** The server's own time, that of its processes, and of those that have ended. */
function treeTime(pid: number): number {
  let ticks = 0;
  for (const name of readdirSync("/proc").filter((entry) => /^\d+$/.test(entry))) {
    const stat = processTicks(Number(name));
    if (stat !== null && (stat.parent === pid || Number(name) === pid)) ticks += stat.ticks;
  }
  return ticks * TICK_MS;
}

/** Null: it has just ended. */
function processTicks(pid: number): { readonly parent: number; readonly ticks: number } | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    // After the name, which may hold anything: state, parent, …, utime, stime, cutime, cstime.
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
    return { parent: Number(fields[1]), ticks };
  } catch {
    return null;
  }
}
