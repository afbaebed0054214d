import type { Duplex } from "node:stream";
import { whenClosed } from "../../lib/when-closed.ts";
import { dialLoopback, type HostTransport } from "../../libvirt-rpc/transports/loopback.ts";
import { firstByte } from "../first-byte.ts";
import { type Call, type HostConnection, type HostFacts, HypervisorError } from "../hypervisor.ts";
import { HostLink } from "./host-link.ts";
import type { Runner } from "./runner.ts";

export interface ConsoleWays {
  /** A further login to the host: a console that nobody reads must hold up nothing else. */
  readonly login: (signal: AbortSignal) => Promise<Runner>;
  /** The way onto the host's own loopback. */
  readonly transport: HostTransport;
  /** Where all that belongs to this installation is kept on the host. */
  readonly directory: string;
}

/** The consoles that are open over one connection to a host: they end with it. */
export class OpenConsoles {
  readonly #ways: ConsoleWays;
  readonly #link: HostLink;
  readonly #streams = new Set<Duplex>();

  /** @param link the connection over which they are opened */
  constructor(link: HostLink, ways: ConsoleWays) {
    this.#link = link;
    this.#ways = ways;
  }

  /** The members of a connection that open consoles of the guests that the host can have. */
  members(guestTypes: HostFacts["guestTypes"]): Pick<HostConnection, "openSerialConsole" | "openVnc"> {
    const hasScreens = guestTypes.some(({ capabilities }) => capabilities.includes("vnc"));
    return {
      openSerialConsole: (uuid, { force }, call) => this.#openSerial(uuid, force, call),
      ...(hasScreens ? { openVnc: (uuid, call) => this.#openVnc(uuid, call) } : {}),
    };
  }

  close(): void {
    for (const stream of this.#streams) {
      stream.destroy(new HypervisorError("unreachable", "the connection to the host was closed"));
    }
  }

  /** On a login of its own, which ends with it. */
  async #openSerial(uuid: string, force: boolean, call: Call): Promise<Duplex> {
    const runner = await this.#ways.login(
      AbortSignal.any([call.signal, AbortSignal.timeout(call.timeoutMs)]),
    );
    const link = new HostLink({ runner, directory: this.#ways.directory, fence: null });
    try {
      return this.#keep(await link.openConsole(uuid, force, call), runner);
    } catch (error) {
      await runner.close();
      throw error;
    }
  }

  /** The screen of an emulated machine, which its device model serves on the host's loopback. */
  async #openVnc(uuid: string, call: Call): Promise<Duplex> {
    const port = Number(await this.#link.tell("screen", [uuid], call));
    if (!Number.isInteger(port) || port < 1 || port > 65_535) {
      throw new HypervisorError("failed", `the host tells no port of the screen of domain ${uuid}`);
    }
    const limit = AbortSignal.any([call.signal, AbortSignal.timeout(call.timeoutMs)]);
    try {
      const stream = await dialLoopback(this.#ways.transport, port, limit);
      await firstByte(stream, limit);
      return this.#keep(stream);
    } catch (cause) {
      if (call.signal.aborted)
        throw new HypervisorError("aborted", "the caller gave the screen up", { cause });
      throw new HypervisorError("unreachable", `the screen of domain ${uuid} was not reached`, { cause });
    }
  }

  #keep(stream: Duplex, runner?: Runner): Duplex {
    this.#streams.add(stream);
    // It may fail while nobody listens yet; its end tells whoever has it then.
    stream.on("error", () => undefined);
    whenClosed(stream, () => {
      this.#streams.delete(stream);
      // Nobody waits for the end of a login that is no longer used; close() never rejects.
      void runner?.close();
    });
    return stream;
  }
}
