/** Calls about network filters. Numbers: enum remote_procedure. */
import { string, struct, uint } from "../codec.ts";
import { remote, remoteVoid } from "../procedure.ts";
import { networkFilter } from "../structures.ts";

const onlyFilter = struct({ filter: networkFilter });

export const nwfilterLookupByName = remote("nwfilterLookupByName", 175, struct({ name: string }), onlyFilter);
export const nwfilterGetXmlDesc = remote(
  "nwfilterGetXmlDesc",
  177,
  struct({ filter: networkFilter, flags: uint }),
  struct({ xml: string }),
);
/** One of this name is replaced, where it has the same UUID; guests that use it have the new one at once. */
export const nwfilterDefineXml = remote("nwfilterDefineXml", 180, struct({ xml: string }), onlyFilter);
/** Refused while a guest that is on uses it. */
export const nwfilterUndefine = remoteVoid("nwfilterUndefine", 181, onlyFilter);
