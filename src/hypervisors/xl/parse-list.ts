import { unreadable } from "./errors.ts";

/** Why a guest stopped itself (sched.h, SHUTDOWN_*), in the order of Xen's numbers. */
const SHUTDOWN_REASONS = ["poweroff", "reboot", "suspend", "crash", "watchdog", "soft-reset"] as const;
export type ShutdownReason = (typeof SHUTDOWN_REASONS)[number] | "unknown";

/** A domain as `xl list -v` shows it. */
export interface ListedDomain {
  /** Null for one that has no name: it is being made, or its memory is being given back. */
  readonly name: string | null;
  readonly domid: number;
  /** What it has now, in MiB. */
  readonly memoryMib: number;
  /** Virtual CPUs that are online. */
  readonly cpuCount: number;
  readonly isPaused: boolean;
  /** It was destroyed, and is gone as soon as its memory is. */
  readonly isDying: boolean;
  /** Null while the guest has not stopped itself. */
  readonly shutdown: ShutdownReason | null;
  /** Time that its CPUs have run, in seconds. */
  readonly cpuSeconds: number;
  /** In lower case. More than one domain can carry the same: while one reboots, the last one may still be dying. */
  readonly uuid: string;
}

const PROGRAM = "xl list -v";
const HEADER = /^Name\s+ID\s+Mem\s+VCPUs\s+State\s+Time\(s\)\s+UUID\s+Reason-Code\s+Security Label/;

/**
 * Name, id, memory, CPUs, state letters, time, UUID, reason, label. A name may hold anything but a line's end: the
 * columns behind it tell where it ends.
 */
const ROW =
  /^(?<name>[^\n]*) +(?<domid>\d+) +(?<memory>\d+) +(?<cpus>\d+) +(?<state>[r-][b-][p-][s-][-rscwS?][d-]) +(?<time>\d+\.\d) (?<uuid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}) +(?<reason>-|[0-9a-f]+) +\S[^\n]*$/i;

/** What xl prints for a name that it cannot find. */
const NO_NAME = "(null)";

/** Reads what `xl list -v` prints. Throws HypervisorError (`failed`) for anything else. */
export function parseList(text: string): readonly ListedDomain[] {
  const [header, ...rows] = text.split("\n");
  if (header === undefined || !HEADER.test(header))
    throw unreadable(PROGRAM, "it does not begin as it should");
  return rows.filter((row) => row !== "").map(parseRow);
}

/** The domain of a UUID that is not dying; the latest where there are several. Null where there is none. */
export function findListed(domains: readonly ListedDomain[], uuid: string): ListedDomain | null {
  const found = domains.filter((domain) => domain.uuid === uuid && !domain.isDying);
  return found.reduce<ListedDomain | null>(
    (latest, domain) => (latest === null || domain.domid > latest.domid ? domain : latest),
    null,
  );
}

function parseRow(row: string): ListedDomain {
  const columns = ROW.exec(row)?.groups;
  if (columns === undefined)
    throw unreadable(PROGRAM, `this line is not one of a domain: ${row.slice(0, 200)}`);
  const { domid, memory, cpus, state = "", time, uuid = "", reason = "" } = columns;
  const name = columns["name"]?.trimEnd() ?? "";
  return {
    name: name === NO_NAME || name === "" ? null : name,
    domid: count(domid),
    memoryMib: count(memory),
    cpuCount: count(cpus),
    isPaused: state[2] === "p",
    isDying: state[5] === "d",
    shutdown: state[3] === "s" ? shutdownReason(reason) : null,
    cpuSeconds: Number(time),
    uuid: uuid.toLowerCase(),
  };
}

/** Reads the reason code, which is in hexadecimal. */
function shutdownReason(code: string): ShutdownReason {
  return SHUTDOWN_REASONS[Number.parseInt(code, 16)] ?? "unknown";
}

function count(digits: string | undefined): number {
  const value = Number(digits);
  if (!Number.isSafeInteger(value)) throw unreadable(PROGRAM, "a number is too large");
  return value;
}
