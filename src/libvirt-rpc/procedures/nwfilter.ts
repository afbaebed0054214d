/** Calls about network filters. Numbers: enum remote_procedure. */
import { string, struct } from "../codec.ts";
import { remote } from "../procedure.ts";
import { networkFilter } from "../structures.ts";

export const nwfilterLookupByName = remote(
  "nwfilterLookupByName",
  175,
  struct({ name: string }),
  struct({ filter: networkFilter }),
);
