import type { Duplex } from "node:stream";
import type { WebSocket } from "ws";
import type { Database } from "../db/client.ts";
import { isDatabaseUnavailable } from "../db/database-errors.ts";
import type { HostReader, HostStreams } from "../hosts/host-reader.ts";
import type { SocketSession } from "../http/web-sockets.ts";
import { DroverError } from "../lib/errors.ts";
import type { TokenId, VmId } from "../lib/ids.ts";
import type { Log } from "../lib/log.ts";
import { type ConsoleEnd, endOf, GUEST_OFF, TAKEN } from "./console-close.ts";
import { type Admitted, lacks, redeemTicket } from "./console-service.ts";
import { runSession, type SessionLimits } from "./console-session.ts";

export interface ConsoleDeps {
  readonly db: Database;
  readonly read: HostReader;
  readonly stream: HostStreams;
  readonly tokenWorks: (id: TokenId) => Promise<boolean>;
  /** Called after the commit of an event. */
  readonly wake: () => void;
  readonly limits?: Partial<ConsoleLimits>;
}

interface ConsoleLimits extends SessionLimits {
  /** Consoles of one VM that are open in one process. */
  readonly maxPerVm: number;
}

const LIMITS: ConsoleLimits = {
  idleMs: 30 * 60_000,
  lifetimeMs: 12 * 3_600_000,
  checkMs: 15_000,
  maxWaitingBytes: 1_048_576,
  maxPerVm: 8,
};

/** Opens consoles for those who have a ticket, and knows which are open. */
export class ConsoleOpener {
  readonly #deps: ConsoleDeps;
  readonly #limits: ConsoleLimits;
  readonly #open = new Map<VmId, number>();

  constructor(deps: ConsoleDeps) {
    this.#deps = deps;
    this.#limits = { ...LIMITS, ...deps.limits };
  }

  /**
   * Uses a ticket up and says what to do with its WebSocket. Throws DroverError: `not_found`, `too_many_requests`,
   * `invalid_state` and the like. What the host itself refuses is told by closing the WebSocket: browsers show a page
   * nothing of a refused one.
   */
  async admit(secret: string, log: Log): Promise<SocketSession> {
    const admitted = await this.#deps.db.transaction((tx) => redeemTicket(tx, secret));
    this.#deps.wake();
    const { vm } = admitted;
    const open = this.#open.get(vm.id) ?? 0;
    if (open >= this.#limits.maxPerVm) {
      throw new DroverError(
        "too_many_requests",
        `VM "${vm.name}" has ${open} consoles open here already. Close one of them first.`,
      );
    }
    return (socket) => {
      void this.#serve(socket, admitted, log);
    };
  }

  async #serve(socket: WebSocket, admitted: Admitted, log: Log): Promise<void> {
    const { vm, kind, actor } = admitted;
    const facts = { vm: vm.id, kind, actor };
    this.#count(vm.id, 1);
    log.info(facts, "console opened");
    try {
      const how = await this.#run(socket, admitted);
      log.info({ ...facts, ...how }, "console closed");
    } catch (error) {
      log.warn({ ...facts, err: error }, "console failed");
      const end =
        error instanceof DroverError
          ? endOf(error)
          : { code: 1011, reason: "The service failed. Its log says why." };
      socket.close(end.code, end.reason);
    } finally {
      this.#count(vm.id, -1);
    }
  }

  async #run(socket: WebSocket, admitted: Admitted): Promise<ConsoleEnd> {
    // What is typed before the console is open waits in the socket.
    socket.pause();
    const gone = new AbortController();
    socket.once("close", () => {
      gone.abort(new Error("the client left"));
    });
    let stream: Duplex;
    try {
      stream = await this.#openOnHost(admitted, gone.signal);
    } finally {
      socket.resume();
    }
    return await runSession({
      socket,
      stream,
      limits: this.#limits,
      mayGoOn: () => unlessUnavailable(this.#deps.tokenWorks(admitted.tokenId)),
      explainEnd: () => this.#explainEnd(admitted),
    });
  }

  async #openOnHost({ vm, kind, force }: Admitted, signal: AbortSignal): Promise<Duplex> {
    const { hostId } = vm;
    if (hostId === null) throw new DroverError("invalid_state", `VM "${vm.name}" is on no host.`);
    return await this.#deps.stream(hostId, signal, async (host, call) => {
      if (kind === "serial") {
        if (host.openSerialConsole === undefined) throw lacks(vm.hostName ?? "", "serialConsole");
        return await host.openSerialConsole(vm.id, { force }, call);
      }
      if (host.openVnc === undefined) throw lacks(vm.hostName ?? "", "vnc");
      return await host.openVnc(vm.id, call);
    });
  }

  /** The host's side just ends; what there is of the guest by now says why. */
  async #explainEnd({ vm }: Admitted): Promise<ConsoleEnd> {
    const { hostId } = vm;
    if (hostId === null) return GUEST_OFF;
    try {
      const signal = new AbortController().signal;
      const domain = await this.#deps.read(hostId, signal, (host, call) => host.observeDomain(vm.id, call));
      return domain?.power === "running" || domain?.power === "paused" ? TAKEN : GUEST_OFF;
    } catch (error) {
      if (error instanceof DroverError) return endOf(error);
      throw error;
    }
  }

  #count(vmId: VmId, change: 1 | -1): void {
    const open = (this.#open.get(vmId) ?? 0) + change;
    if (open === 0) this.#open.delete(vmId);
    else this.#open.set(vmId, open);
  }
}

/** Null while the database is away: a console outlives that. */
async function unlessUnavailable(answer: Promise<boolean>): Promise<boolean | null> {
  try {
    return await answer;
  } catch (error) {
    if (isDatabaseUnavailable(error)) return null;
    throw error;
  }
}
