/** What happened to a guest, as the world keeps it. */
export interface ConsoleEntry {
  readonly kind: "boot" | "power-down" | "panic";
  /** Drawn anew for each entry; names the boot in the guest's marker line. */
  readonly boot: string;
  readonly at: string;
  readonly cpuCount: number;
  readonly memoryMib: number;
  readonly commandLine: string | null;
}

/** The serial console's log as a small Linux guest would have written it; lines end as on a serial line. */
export function renderConsoleLog(entries: readonly ConsoleEntry[]): string {
  return entries.flatMap((entry) => linesOf(entry).map((line) => `${line}\r\n`)).join("");
}

function linesOf(entry: ConsoleEntry): readonly string[] {
  switch (entry.kind) {
    case "boot":
      return [
        stamp(0, "Linux version 6.1.0-sim-amd64 (simulated)"),
        stamp(0, `Command line: ${entry.commandLine ?? "root=/dev/vda1 ro console=ttyS0"}`),
        stamp(0.01, `Memory: ${entry.memoryMib * 1024}K available`),
        stamp(0.02, `smp: Brought up 1 node, ${entry.cpuCount} CPU${entry.cpuCount === 1 ? "" : "s"}`),
        stamp(0.91, "Run /init as init process"),
        `guest clock ${entry.at}`,
        `DROVER-GUEST-UP boot=${entry.boot}`,
        "login: ",
      ];
    case "power-down":
      return ["The system is going down NOW!", stamp(9.87, "reboot: Power down")];
    case "panic":
      return [stamp(5.43, "Kernel panic - not syncing: simulated crash")];
  }
}

function stamp(seconds: number, text: string): string {
  return `[${seconds.toFixed(6).padStart(12)}] ${text}`;
}
