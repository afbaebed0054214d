import type { Call, ConsoleLogAbility, DomainRef } from "../hypervisor.ts";
import { commandFailed } from "./errors.ts";
import type { ProgramArguments, XlHost } from "./host.ts";
import { checkedDomainName } from "./xl-config.ts";

/**
 * The file and the part that logrotate turned over before it, the older first. No directory: no guest has ever written
 * anything.
 */
const READ = `
[ -d "$1" ] || exit 0
cd -- "$1" || exit 1
for part in "$2.1" "$2"; do
  [ ! -f "$part" ] || tail -c "$3" -- "$part" || exit 1
done
`;

/** The file and all parts that logrotate makes of it, named in full so that no other domain's log is among them. */
const DELETE = `
[ -d "$1" ] || exit 0
cd -- "$1" || exit 1
rm -f -- "$2" "$2".[0-9] "$2".[0-9].gz "$2".[0-9][0-9] "$2".[0-9][0-9].gz
`;

/** How long removing a log may take on the host. */
const DELETE_LIMIT_SECONDS = 60;

export interface ConsoleLogOptions {
  /** Where xenconsoled writes its logs: see parse-console-daemon.ts. */
  readonly directory: string;
  /**
   * Rejects with `foreign` where a domain of this UUID or name is not ours. Logs bear the domain's name alone, and a
   * domain is often removed before its log.
   */
  refuseForeign(domain: DomainRef, call: Call): Promise<void>;
}

/** Guests' consoles as xenconsoled logs them, one file for each name. */
export function consoleLogAbility(host: XlHost, options: ConsoleLogOptions): ConsoleLogAbility {
  const program = (text: string, domain: DomainRef, ...args: readonly string[]): ProgramArguments => {
    return ["sh", "-c", text, "drover", options.directory, consoleLogName(domain.name), ...args];
  };
  return {
    readConsoleLog: async (domain, maxBytes, call) => {
      const result = await host.readBytes(program(READ, domain, String(maxBytes)), call);
      if (result.exitCode !== 0) throw commandFailed(`reading the console log of '${domain.name}'`, result);
      // Each part gives as many bytes as are wanted of both.
      return result.stdout.subarray(Math.max(0, result.stdout.byteLength - maxBytes));
    },
    deleteConsoleLog: async (domain, call) => {
      const remove = program(DELETE, domain);
      await options.refuseForeign(domain, call);
      const result = await host.change(remove, call, {
        lock: domain.uuid,
        limitSeconds: DELETE_LIMIT_SECONDS,
      });
      if (result.exitCode !== 0) throw commandFailed(`removing the console log of '${domain.name}'`, result);
    },
  };
}

/** The log's file, as xenconsoled names it. */
export function consoleLogName(domainName: string): string {
  return `guest-${checkedDomainName(domainName)}.log`;
}
