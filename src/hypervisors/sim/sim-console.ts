import type { Duplex } from "node:stream";
import { type Call, type HostTarget, HypervisorError, type ObservedDomain } from "../hypervisor.ts";
import type { SimCalls } from "./sim-calls.ts";
import { renderConsoleLog } from "./sim-console-log.ts";
import { observedDomainOf } from "./sim-domains.ts";
import type { SimLife } from "./sim-life.ts";
import { READ_SERIAL, type SerialRow } from "./sim-reads-store.ts";
import { SimShell } from "./sim-shell.ts";
import type { SimSettings } from "./sim-uri.ts";

/** Who has which guest's console open: one at a time, among those who share this driver. */
export class SimConsoles {
  readonly #open = new Map<string, SimShell>();

  /** @throws HypervisorError `busy` when somebody has it, unless `force` */
  take(guest: string, shell: SimShell, force: boolean): void {
    const before = this.#open.get(guest);
    if (before !== undefined) {
      if (!force) throw new HypervisorError("busy", "the guest's serial console is open already");
      before.destroy(new HypervisorError("aborted", "another client took the console over"));
    }
    this.#open.set(guest, shell);
    // It may fail while nobody listens yet; its end tells whoever has it then.
    shell.on("error", () => undefined);
    shell.once("close", () => {
      if (this.#open.get(guest) === shell) this.#open.delete(guest);
    });
  }
}

/** What consoles need of a connection. */
interface ConsoleParts {
  readonly settings: SimSettings;
  readonly target: HostTarget;
  readonly calls: SimCalls;
  readonly life: SimLife;
  readonly consoles: SimConsoles;
  readonly onChange: (listener: (uuid: string, detail: string) => void) => () => void;
}

/** The serial console of a simulated guest: a small shell that lives as long as the guest is on. */
export function serialConsoleOf(parts: ConsoleParts) {
  return async (uuid: string, { force }: { readonly force: boolean }, call: Call): Promise<Duplex> => {
    const look = () => readSerial(parts, uuid, call);
    let { log } = requireOn(await look(), parts);
    const shell = new SimShell(() => log);
    parts.consoles.take(`${parts.settings.hypervisor} ${parts.settings.name} ${uuid}`, shell, force);
    const update = async (): Promise<void> => {
      const now = await readSerial(parts, uuid, { ...call, signal: new AbortController().signal });
      if (now.log.startsWith(log)) shell.tell(now.log.slice(log.length));
      log = now.log;
      if (!isOn(now.domain)) shell.push(null);
    };
    let updating = Promise.resolve();
    const stops = [
      parts.onChange((changed) => {
        if (changed !== uuid) return;
        updating = updating.then(update).catch((error: unknown) => {
          shell.destroy(error instanceof Error ? error : new Error(String(error)));
        });
      }),
      parts.life.onEnd((error) => {
        shell.destroy(error);
      }),
    ];
    shell.once("close", () => {
      for (const stop of stops) stop();
    });
    return shell;
  };
}

interface Serial {
  readonly domain: ObservedDomain | null;
  readonly log: string;
}

async function readSerial({ calls }: ConsoleParts, uuid: string, call: Call): Promise<Serial> {
  const row = await calls.read<SerialRow>("openSerialConsole", READ_SERIAL, [uuid], call);
  const domain = row.domain === null ? null : observedDomainOf(row.domain);
  return { domain, log: renderConsoleLog(row.entries) };
}

function isOn(domain: ObservedDomain | null): boolean {
  return domain?.power === "running" || domain?.power === "paused";
}

function requireOn(serial: Serial, { target }: ConsoleParts): Serial {
  const { domain } = serial;
  if (domain === null) throw new HypervisorError("not-found", "the simulated host has no such domain");
  if (domain.installationId !== target.installationId) {
    throw new HypervisorError("foreign", `domain '${domain.name}' does not carry this installation's mark`);
  }
  if (!isOn(domain)) throw new HypervisorError("invalid-state", `domain '${domain.name}' is off`);
  return serial;
}
