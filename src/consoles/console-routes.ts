import { Readable } from "node:stream";
import { z } from "zod";
import type { HostReader } from "../hosts/host-reader.ts";
import type { Api } from "../http/route.ts";
import { timestamp } from "../http/schemas.ts";
import { vmNamed } from "../vms/vm-reader.ts";
import { type ConsoleDeps, ConsoleOpener } from "./console-opener.ts";
import {
  type ConsoleAccess,
  ConsoleAccess as ConsoleAccessSchema,
  OpenConsoleBody,
  Ticket,
} from "./console-schemas.ts";
import { type IssuedTicket, issueTicket, lacks, requireScreen } from "./console-service.ts";

export interface ConsoleRouteDeps extends ConsoleDeps {
  /** Where clients reach the API from outside, without a slash at its end; null: as each request says. */
  readonly publicUrl: string | null;
}

const OPEN_DESCRIPTION = `Gives a page for a browser, and the same as a WebSocket for programs. Both carry one secret, which
is good for one connection that begins within a minute. The VM must be on.`;

const SOCKET_DESCRIPTION = `A WebSocket of bytes in both directions. \`serial\`: what the guest writes to its serial console from
now on, and what is typed into it; text messages are taken as UTF-8, and all that comes is binary. \`vnc\`: the RFB
protocol (RFC 6143), as noVNC speaks it. The secret in the path is used up by the connection.

It is closed with 1000 when the VM goes off, 1001 when the service stops, 4401 when the token that asked for it was
revoked, 4408 when nothing came for 30 minutes or it was open for 12 hours, and otherwise with 4000 and the HTTP status of
what went wrong: 4409 when another client has the console or took it over, 4503 when the host does not answer.`;

/** Consoles, screens and pictures of VMs. */
export function registerConsoleRoutes(api: Api, deps: ConsoleRouteDeps): void {
  api.change({
    method: "POST",
    path: "/v1/vms/:vm/console",
    access: "project",
    operationId: "openVmConsole",
    tag: "VMs",
    summary: "Open a VM's console or screen",
    description: OPEN_DESCRIPTION,
    body: OpenConsoleBody,
    responses: { 201: ConsoleAccessSchema },
    errors: ["not_found", "invalid_state", "capability_unsupported", "host_unreachable"],
    change: async (tx, { params, body, project, caller, actor, origin }) => {
      const vm = await vmNamed(tx, project.id, params.vm);
      const ticket = await issueTicket(tx, vm, body, { tokenId: caller.tokenId, actor });
      const { kind } = body;
      return {
        status: 201,
        body: accessOf(ticket, kind, deps.publicUrl ?? origin),
        replayBody: { kind, expiresAt: timestamp(ticket.expiresAt) },
      };
    },
  });
  registerSocket(api, deps);
  registerScreenshot(api, deps);
}

function accessOf(
  { secret, expiresAt }: IssuedTicket,
  kind: ConsoleAccess["kind"],
  base: string,
): ConsoleAccess {
  return {
    kind,
    url: `${base}/console/${secret}`,
    webSocketUrl: `${base.replace(/^http/, "ws")}/v1/consoles/${secret}`,
    expiresAt: timestamp(expiresAt),
  };
}

function registerSocket(api: Api, deps: ConsoleDeps): void {
  const opener = new ConsoleOpener(deps);
  api.socket({
    path: "/v1/consoles/:ticket",
    access: "public",
    operationId: "connectConsole",
    tag: "VMs",
    summary: "Connect to a console",
    description: SOCKET_DESCRIPTION,
    params: { ticket: Ticket },
    errors: [
      ...(["not_found", "invalid_state", "capability_unsupported", "host_unreachable"] as const),
      ...(["too_many_requests", "unavailable"] as const),
    ],
    handle: ({ params, log }) => opener.admit(params.ticket, log),
  });
}

function registerScreenshot(
  api: Api,
  { db, read }: { readonly db: ConsoleDeps["db"]; readonly read: HostReader },
): void {
  api.raw({
    method: "GET",
    path: "/v1/vms/:vm/screenshot",
    access: "project",
    operationId: "getVmScreenshot",
    tag: "VMs",
    summary: "Take a picture of a VM's screen",
    description: "What its first screen shows at this moment. The VM must be on.",
    responses: {
      200: {
        description: "The picture.",
        content: { "image/png": { schema: z.string().meta({ format: "binary" }) } },
      },
    },
    errors: [
      ...(["not_found", "invalid_state", "capability_unsupported", "host_unreachable"] as const),
      ...(["hypervisor_error", "deadline_exceeded"] as const),
    ],
    handle: async ({ params, project, signal }) => {
      const vm = await vmNamed(db, project.id, params.vm);
      await requireScreen(db, vm, "screenshot");
      const { hostId } = vm;
      if (hostId === null) throw new Error("a VM that is on is on a host");
      const png = await read(hostId, signal, async (host, call) => {
        if (host.takeScreenshot === undefined) throw lacks(vm.hostName ?? "", "screenshot");
        return await host.takeScreenshot(vm.id, call);
      });
      return {
        status: 200,
        headers: { "content-type": "image/png", "content-length": String(png.length) },
        body: Readable.from([Buffer.from(png)], { objectMode: false }),
      };
    },
  });
}
