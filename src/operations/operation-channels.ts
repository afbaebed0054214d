import type { Listener } from "../db/listener.ts";

/** What a wake-up is about. A wake-up only says "look"; a poll is everybody's backstop. */
export const QUEUED = "operation_queued";
export const CANCEL_ASKED = "operation_cancel_asked";
export const ENDED = "operation_ended";

/** Listening for wake-ups and sending them: a part of the process's listener. */
export type Wakes = Pick<Listener, "listen" | "notify">;
