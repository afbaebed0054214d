/** Every call we speak. */
export * from "./connect.ts";
export * from "./domain.ts";
export * from "./network.ts";
export * from "./nwfilter.ts";
export * from "./storage.ts";
