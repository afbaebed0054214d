import { type LibvirtConnection, LibvirtError, type Procedure } from "../../libvirt-rpc/index.ts";
import type { Call } from "../hypervisor.ts";
import { toHypervisorError } from "./errors.ts";
import { type OpenConnection, SideConnections } from "./side-connections.ts";

/** Changes of one host under way at once; libvirtd has 20 workers for all of its clients. */
const MAX_CHANGES = 8;
/** Changes that last as long as a guest's memory takes to be written or read: the disk of the host is what they share. */
const MAX_SLOW = 3;
const MAX_STREAMS = 4;
/** libvirtd has a worker wait for each, until the guest has answered or its time is up. */
const MAX_GUESTS = 3;

/** Calls to a host. They reject with HypervisorError, or with what `beforeSend` threw. */
export interface HostCalls {
  /** A call that changes nothing and is answered without asking a guest. */
  read<Args, Result>(procedure: Procedure<Args, Result>, args: Args, call: Call): Promise<Result>;
  /** A call that can change the host. */
  change<Args, Result>(procedure: Procedure<Args, Result>, args: Args, call: Call): Promise<Result>;
  /** A change that may take minutes: it holds up other slow ones only. */
  changeSlowly<Args, Result>(procedure: Procedure<Args, Result>, args: Args, call: Call): Promise<Result>;
  /** A question that a guest answers, or does not: it holds up other guests' answers only. */
  askGuest<Args, Result>(procedure: Procedure<Args, Result>, args: Args, call: Call): Promise<Result>;
  /** Work on a stream, with a connection to itself. */
  stream<Result>(call: Call, work: (connection: LibvirtConnection) => Promise<Result>): Promise<Result>;
}

/**
 * The ways to one daemon. Reads and events share the main connection: they never wait for a guest. A change may
 * hang with its guest, and a stream takes its time, so each has a connection of its own while it lasts.
 */
export class Lanes implements HostCalls {
  readonly #main: LibvirtConnection;
  readonly #changes: SideConnections;
  readonly #slow: SideConnections;
  readonly #guests: SideConnections;
  readonly #streams: SideConnections;

  constructor(main: LibvirtConnection, open: OpenConnection) {
    this.#main = main;
    this.#changes = new SideConnections(open, MAX_CHANGES);
    this.#slow = new SideConnections(open, MAX_SLOW);
    this.#guests = new SideConnections(open, MAX_GUESTS);
    this.#streams = new SideConnections(open, MAX_STREAMS);
  }

  async read<Args, Result>(procedure: Procedure<Args, Result>, args: Args, call: Call): Promise<Result> {
    const { signal, timeoutMs } = call;
    try {
      return await this.#main.call(procedure, args, { signal, timeoutMs });
    } catch (error) {
      throw toHypervisorError(error, signal);
    }
  }

  change<Args, Result>(procedure: Procedure<Args, Result>, args: Args, call: Call): Promise<Result> {
    return this.#use(this.#changes, call, (connection) => connection.call(procedure, args, call));
  }

  changeSlowly<Args, Result>(procedure: Procedure<Args, Result>, args: Args, call: Call): Promise<Result> {
    return this.#use(this.#slow, call, (connection) => connection.call(procedure, args, call));
  }

  askGuest<Args, Result>(procedure: Procedure<Args, Result>, args: Args, call: Call): Promise<Result> {
    return this.#use(this.#guests, call, (connection) => connection.call(procedure, args, call));
  }

  stream<Result>(call: Call, work: (connection: LibvirtConnection) => Promise<Result>): Promise<Result> {
    return this.#use(this.#streams, call, work);
  }

  async close(): Promise<void> {
    const ways = [this.#changes, this.#slow, this.#guests, this.#streams, this.#main];
    await Promise.all(ways.map((way) => way.close()));
  }

  async #use<Result>(
    connections: SideConnections,
    call: Call,
    work: (connection: LibvirtConnection) => Promise<Result>,
  ): Promise<Result> {
    try {
      return await connections.use(call, work, (error) => error instanceof LibvirtError);
    } catch (error) {
      throw toHypervisorError(error, call.signal);
    }
  }
}
