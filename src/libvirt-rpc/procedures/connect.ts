/** Calls about the connection and the machine behind it. Numbers: enum remote_procedure. */
import {
  array,
  boolean,
  chars,
  constant,
  int,
  nothing,
  nullable,
  string,
  struct,
  uhyper,
  uint,
} from "../codec.ts";
import { remote, remoteVoid } from "../procedure.ts";
import { domain, typedParams } from "../structures.ts";

const AUTH_TYPE_LIST_MAX = 20;
const NODE_MEMORY_STATS_MAX = 16;
const NODE_MAX_CELLS = 1024;
const DOMAIN_LIST_MAX = 16_384;
const DOMAIN_STATS_MAX = 262_144;

/** `name` is the URI the daemon opens, without transport: `qemu:///system`. */
export const connectOpen = remoteVoid("connectOpen", 1, struct({ name: nullable(string), flags: uint }));
export const connectClose = remoteVoid("connectClose", 2, nothing);
/** The ways to authenticate that are offered: 0 none, 1 SASL, 2 polkit. */
export const authList = remote("authList", 66, nothing, struct({ types: array(int, AUTH_TYPE_LIST_MAX) }));
export const authPolkit = remote("authPolkit", 70, nothing, struct({ complete: boolean }));

/** The driver's name: `QEMU`, `TEST`. */
export const connectGetType = remote("connectGetType", 3, nothing, struct({ type: string }));
/** Major * 1,000,000 + minor * 1,000 + release, of the hypervisor. */
export const connectGetVersion = remote("connectGetVersion", 4, nothing, struct({ hvVer: uhyper }));
/** As connectGetVersion, of libvirt. */
export const connectGetLibVersion = remote("connectGetLibVersion", 157, nothing, struct({ libVer: uhyper }));
export const connectGetHostname = remote("connectGetHostname", 59, nothing, struct({ hostname: string }));
export const connectGetCapabilities = remote(
  "connectGetCapabilities",
  7,
  nothing,
  struct({ capabilities: string }),
);
export const connectGetDomainCapabilities = remote(
  "connectGetDomainCapabilities",
  342,
  struct({
    emulatorBin: nullable(string),
    arch: nullable(string),
    machine: nullable(string),
    virtType: nullable(string),
    flags: uint,
  }),
  struct({ capabilities: string }),
);

/** `memory` in KiB, `mhz` 0 where unknown; `nodes` NUMA cells of `sockets` of `cores` of `threads`. */
export const nodeGetInfo = remote(
  "nodeGetInfo",
  6,
  nothing,
  struct({
    model: chars(32),
    memory: uhyper,
    cpus: int,
    mhz: int,
    nodes: int,
    sockets: int,
    cores: int,
    threads: int,
  }),
);
/** In bytes. */
export const nodeGetFreeMemory = remote("nodeGetFreeMemory", 102, nothing, struct({ freeMem: uhyper }));
/**
 * `cellNum` -1 is the whole machine. Ask with `nParams` 0 for their number, then with that number.
 * Values in KiB: total, free, buffers, cached.
 */
export const nodeGetMemoryStats = remote(
  "nodeGetMemoryStats",
  228,
  struct({ nParams: int, cellNum: int, flags: uint }),
  struct({ params: array(struct({ field: string, value: uhyper }), NODE_MEMORY_STATS_MAX), nParams: int }),
);
/** Free bytes of each NUMA cell, from `startCell` on. */
export const nodeGetCellsFreeMemory = remote(
  "nodeGetCellsFreeMemory",
  101,
  struct({ startCell: int, maxCells: int }),
  struct({ cells: array(uhyper, NODE_MAX_CELLS) }),
);

/** `flags` 0 is all of them; else virConnectListAllDomainsFlags. */
export const connectListAllDomains = remote(
  "connectListAllDomains",
  273,
  struct({ needResults: constant(1), flags: uint }),
  struct({ domains: array(domain, DOMAIN_LIST_MAX), count: constant(0) }),
);
/** An empty `domains` is all of them; `stats` 0 is every group the daemon has (virDomainStatsTypes). */
export const connectGetAllDomainStats = remote(
  "connectGetAllDomainStats",
  344,
  struct({ domains: array(domain, DOMAIN_LIST_MAX), stats: uint, flags: uint }),
  struct({ retStats: array(struct({ domain, params: typedParams(DOMAIN_STATS_MAX) }), DOMAIN_LIST_MAX) }),
);

/** Subscribes to one kind of event; a null domain is all of them. See procedures/events.ts. */
export const connectDomainEventCallbackRegisterAny = remote(
  "connectDomainEventCallbackRegisterAny",
  316,
  struct({ eventId: int, domain: nullable(domain) }),
  struct({ callbackId: int }),
);
export const connectDomainEventCallbackDeregisterAny = remoteVoid(
  "connectDomainEventCallbackDeregisterAny",
  317,
  struct({ callbackId: int }),
);
