import type { ChildProcess } from "node:child_process";
import type { HypervisorError } from "../hypervisor.ts";
import type { ProgramArguments } from "./host.ts";

/** A program that was started on the host. */
export interface Started {
  readonly child: ChildProcess;
  /** Stops listening to it. The program may run on. */
  giveUp(): void;
}

/** Starts programs: here, or over ssh. */
export interface Runner {
  /** Starts it before it returns. @param takesInput whether the program's stdin is written to, or empty */
  start(argv: ProgramArguments, takesInput: boolean): Started;
  /** True when the exit status is not the program's own: it was not reached, or its end was not heard. */
  isLoss(exitCode: number): boolean;
  /** Aborts when the connection is lost or closed, with the HypervisorError that says why. */
  readonly over: AbortSignal;
  /** Calls the listener once when the connection is lost, not when it is closed. */
  onClose(listener: (error: HypervisorError) => void): void;
  close(): Promise<void>;
}
