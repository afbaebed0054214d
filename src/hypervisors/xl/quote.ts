import { HypervisorError } from "../hypervisor.ts";
import type { ProgramArguments } from "./host.ts";

/**
 * Writes a program and its arguments as one line for a POSIX shell, which gives back the same arguments. ssh hands what
 * it is given to the login shell on the other side: nothing reaches that shell but through here.
 * @throws HypervisorError `invalid-spec` for a NUL, which no argument can hold
 */
export function shellLine(argv: ProgramArguments): string {
  return argv.map(quoteArgument).join(" ");
}

/** Between single quotes a shell changes nothing; the quote itself is written outside of them. */
function quoteArgument(argument: string): string {
  if (argument.includes("\0")) {
    throw new HypervisorError("invalid-spec", "an argument of a program on the host cannot hold a NUL");
  }
  return `'${argument.replaceAll("'", "'\\''")}'`;
}
