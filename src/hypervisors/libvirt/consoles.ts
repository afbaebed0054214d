import type { Duplex } from "node:stream";
import { whenClosed } from "../../lib/when-closed.ts";
import {
  dialLoopback,
  domainGetXmlDesc,
  domainOpenConsole,
  type HostTransport,
  type LibvirtConnection,
  type Transport,
} from "../../libvirt-rpc/index.ts";
import { firstByte } from "../first-byte.ts";
import { type Call, type HostConnection, HypervisorError } from "../hypervisor.ts";
import { findOwnDomain, type OwnDomain } from "./domain-lookup.ts";
import { toHypervisorError } from "./errors.ts";
import type { HostContext } from "./host-context.ts";
import { parseVncPort } from "./parse-graphics.ts";
import { readDesktopName } from "./rfb-greeting.ts";
import type { OpenConnection } from "./side-connections.ts";

/** VIR_DOMAIN_CONSOLE_FORCE. */
const FORCE = 1;

/** The consoles that are open over one connection to a host: they end with it. */
export class OpenConsoles {
  readonly #open: OpenConnection;
  readonly #streams = new Set<Duplex>();

  /** @param open a further connection to the host's daemon: a console that nobody reads must hold up nothing else */
  constructor(open: OpenConnection) {
    this.#open = open;
  }

  /** Opens a serial console on a connection of its own, which ends with it. */
  async openSerial(host: HostContext, uuid: string, force: boolean, call: Call): Promise<Duplex> {
    const { domain } = await runningDomain(host, uuid, call);
    return await failingAsHost(call, async () => {
      const connection = await this.#open(call.signal, call.timeoutMs);
      try {
        const args = { domain, devName: null, flags: force ? FORCE : 0 };
        const stream = await connection.duplex(domainOpenConsole, args, call);
        return this.#keep(stream, connection);
      } catch (error) {
        await connection.close();
        throw error;
      }
    });
  }

  /** Reaches a guest's VNC server on the loopback of its host. */
  async openVnc(host: HostContext, transport: HostTransport, uuid: string, call: Call): Promise<Duplex> {
    const { domain } = await runningDomain(host, uuid, call);
    const { xml } = await host.calls.read(domainGetXmlDesc, { domain, flags: 0 }, call);
    const port = parseVncPort(xml);
    if (port === null) {
      throw new HypervisorError(
        "invalid-state",
        `domain '${domain.name}' has no VNC server that listens on a port`,
      );
    }
    return await failingAsHost(call, async () => {
      if (transport.kind === "unix") await requireOwnLoopback(transport, port, domain.name, call);
      return this.#keep(await greeted(transport, port, call));
    });
  }

  close(): void {
    for (const stream of this.#streams) {
      stream.destroy(new HypervisorError("unreachable", "the connection to the host was closed"));
    }
  }

  #keep(stream: Duplex, connection?: LibvirtConnection): Duplex {
    this.#streams.add(stream);
    // It may fail while nobody listens yet; its end tells whoever has it then.
    stream.on("error", () => undefined);
    whenClosed(stream, () => {
      this.#streams.delete(stream);
      // Nobody waits for the end of a connection that is no longer used; close() never rejects.
      void connection?.close();
    });
    return stream;
  }
}

/** The transport where it brings us onto the host itself; null where only libvirt is in reach. */
export function hostTransportOf(transport: Transport): HostTransport | null {
  return transport.kind === "unix" || transport.kind === "ssh" ? transport : null;
}

/** The members of a connection that open consoles. */
export function consoleMembers(
  consoles: OpenConsoles,
  host: HostContext,
  transport: Transport,
): Pick<HostConnection, "openSerialConsole" | "openVnc"> {
  const hostTransport = hostTransportOf(transport);
  return {
    openSerialConsole: (uuid, { force }, call) => consoles.openSerial(host, uuid, force, call),
    ...(hostTransport === null
      ? {}
      : { openVnc: (uuid, call) => consoles.openVnc(host, hostTransport, uuid, call) }),
  };
}

/** Ours, and on. */
export async function runningDomain(host: HostContext, uuid: string, call: Call): Promise<OwnDomain> {
  const found = await findOwnDomain(host, uuid, host.target.installationId, call);
  if (found.active) return found;
  throw new HypervisorError("invalid-state", `domain '${found.domain.name}' is off`);
}

async function failingAsHost<T>({ signal }: Call, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw toHypervisorError(error, signal);
  }
}

/** The stream once its server has begun to speak, which over ssh is when the way to it is known to be open. */
async function greeted(transport: HostTransport, port: number, { signal, timeoutMs }: Call): Promise<Duplex> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
  const stream = await dialLoopback(transport, port, limit);
  await firstByte(stream, limit);
  return stream;
}

/**
 * A libvirtd on a local socket may run in a network namespace of its own, so that the port is another program's here,
 * be it another guest's VNC server: only a server that names this domain is its screen.
 */
async function requireOwnLoopback(
  transport: HostTransport,
  port: number,
  domainName: string,
  call: Call,
): Promise<void> {
  const advice =
    "Where libvirtd runs in a network namespace of its own, register the host by a qemu+ssh:// URI.";
  let name: string;
  try {
    name = await readDesktopName(await greeted(transport, port, call), call.signal);
  } catch (cause) {
    call.signal.throwIfAborted();
    throw new HypervisorError(
      "unsupported",
      `the screen of '${domainName}' is not in reach on 127.0.0.1:${port} of this machine. ${advice}`,
      { cause },
    );
  }
  if (name === `QEMU (${domainName})`) return;
  throw new HypervisorError(
    "unsupported",
    `127.0.0.1:${port} of this machine is the screen of another guest than '${domainName}'. ${advice}`,
  );
}
