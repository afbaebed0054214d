import type { Listener } from "../db/listener.ts";

/** What a wake-up is about. A wake-up only says "look"; a poll is everybody's backstop. */
export const QUEUED = "operation_queued";
export const CANCEL_ASKED = "operation_cancel_asked";
export const ENDED = "operation_ended";
/** A worker came or went, or a host was given up: who owns what is to be looked at. */
export const OWNERSHIP = "host_ownership";

/** Listening for wake-ups and sending them: a part of the process's listener. */
export type Wakes = Pick<Listener, "listen" | "notify">;
