import { z } from "zod";
import { Id, Timestamp } from "../http/schemas.ts";
import type { EventRecord } from "./event-store.ts";

/** Events as the API shows them. */

export const EventSchema = z
  .strictObject({
    seq: z
      .string()
      .regex(/^\d{1,19}$/)
      .meta({
        description:
          "Its number: without gaps, in the order of commit. What `after` and `Last-Event-ID` take.",
        examples: ["1024"],
      }),
    id: Id,
    type: z.string().meta({ examples: ["vm.power.changed"] }),
    at: Timestamp.meta({ description: "When it happened." }),
    subject: z
      .strictObject({ kind: z.string(), id: Id, name: z.string().nullable() })
      .meta({ id: "EventSubject", description: "What it is about." }),
    operationId: Id.nullable(),
    data: z.record(z.string(), z.unknown()),
  })
  .meta({ id: "Event", description: "A fact: what changed, when, by which operation." });

export type EventView = z.output<typeof EventSchema>;

export function eventView(event: EventRecord): EventView {
  return {
    seq: event.seq.toString(),
    id: event.id,
    type: event.type,
    at: event.at.toISOString(),
    subject: event.subject,
    operationId: event.operationId,
    data: { ...event.data },
  };
}
