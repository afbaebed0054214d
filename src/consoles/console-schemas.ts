import { z } from "zod";
import { TICKET_PREFIX } from "../http/masked-url.ts";
import { Timestamp } from "../http/schemas.ts";

export const ConsoleKind = z.enum(["serial", "vnc"]).meta({
  id: "ConsoleKind",
  description: "`serial`: the serial console, as text. `vnc`: the screen, keyboard and mouse, over RFB.",
});
export type ConsoleKind = z.output<typeof ConsoleKind>;

/** The secret of a ticket, as it stands in paths. */
export const Ticket = z
  .string()
  .regex(new RegExp(`^${TICKET_PREFIX}[A-Za-z0-9_-]{43}$`), "must be a console's ticket")
  .meta({ description: "The secret that `POST /v1/vms/{vm}/console` gave, good for one connection." });

export const OpenConsoleBody = z
  .strictObject({
    kind: ConsoleKind,
    force: z.boolean().default(false).meta({
      description:
        "A serial console serves one client at a time. Without force a second one is refused when it connects (close code 4409); with it, the first is closed. A screen serves several.",
    }),
  })
  .meta({ id: "OpenConsole", examples: [{ kind: "serial" }] });
export type OpenConsoleBody = z.output<typeof OpenConsoleBody>;

export const ConsoleAccess = z
  .strictObject({
    kind: ConsoleKind,
    url: z
      .string()
      .optional()
      .meta({
        description:
          "A page with the console, to be opened in a browser. A repeated request does not get it.",
        examples: ["http://127.0.0.1:7420/console/console_3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
      }),
    webSocketUrl: z
      .string()
      .optional()
      .meta({
        description: "The same as a WebSocket, for programs. A repeated request does not get it.",
        examples: ["ws://127.0.0.1:7420/v1/consoles/console_3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
      }),
    expiresAt: Timestamp.meta({ description: "Until when a connection may begin." }),
  })
  .meta({
    id: "ConsoleAccess",
    description: "A way to a console, for one connection: the page and the WebSocket share it.",
  });
export type ConsoleAccess = z.output<typeof ConsoleAccess>;
