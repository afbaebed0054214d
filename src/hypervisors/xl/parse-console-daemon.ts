/** How xenconsoled, which reads guests' consoles, was started. */
export interface ConsoleDaemon {
  /** Whether it writes what guests say into files. */
  readonly logsGuests: boolean;
  /** Where it writes those files. */
  readonly logDirectory: string;
}

const LOG_DIRECTORY = "/var/log/xen/console";
const LOGS_GUESTS: ReadonlySet<string> = new Set(["guest", "all"]);

/** Reads the arguments of a xenconsoled that runs, as /proc tells them: each ends in a NUL. */
export function parseConsoleDaemon(commandLine: string): ConsoleDaemon {
  const args = commandLine.split("\0").slice(1);
  const directory = option(args, "--log-dir");
  return {
    logsGuests: LOGS_GUESTS.has(option(args, "--log") ?? "none"),
    logDirectory: directory?.startsWith("/") === true ? directory : LOG_DIRECTORY,
  };
}

/** The last value of an option, which stands behind `=` or in the next argument. */
function option(args: readonly string[], name: string): string | undefined {
  return args.reduce<string | undefined>((found, arg, index) => {
    if (arg.startsWith(`${name}=`)) return arg.slice(name.length + 1);
    return arg === name ? (args[index + 1] ?? found) : found;
  }, undefined);
}
