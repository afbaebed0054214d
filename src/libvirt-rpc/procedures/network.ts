/** Calls about virtual networks. Numbers: enum remote_procedure. */
import { array, boolean, constant, hyper, int, nullable, string, struct, uint, uuid } from "../codec.ts";
import { remote, remoteVoid } from "../procedure.ts";
import { network } from "../structures.ts";

const NETWORK_LIST_MAX = 16_384;
const DHCP_LEASES_MAX = 65_536;

const onlyNetwork = struct({ network });

export const connectListAllNetworks = remote(
  "connectListAllNetworks",
  283,
  struct({ needResults: constant(1), flags: uint }),
  struct({ networks: array(network, NETWORK_LIST_MAX), count: constant(0) }),
);
export const networkLookupByName = remote("networkLookupByName", 46, struct({ name: string }), onlyNetwork);
export const networkGetXmlDesc = remote(
  "networkGetXmlDesc",
  43,
  struct({ network, flags: uint }),
  struct({ xml: string }),
);
export const networkIsActive = remote("networkIsActive", 152, onlyNetwork, struct({ active: boolean }));
export const networkDefineXml = remote("networkDefineXml", 41, struct({ xml: string }), onlyNetwork);
export const networkCreate = remoteVoid("networkCreate", 39, onlyNetwork);
export const networkDestroy = remoteVoid("networkDestroy", 42, onlyNetwork);
export const networkUndefine = remoteVoid("networkUndefine", 49, onlyNetwork);
export const networkSetAutostart = remoteVoid(
  "networkSetAutostart",
  48,
  struct({ network, autostart: boolean }),
);

/** A null `mac` is every lease. `expiryTime` in seconds since 1970, `type` 0 IPv4, 1 IPv6. */
export const networkGetDhcpLeases = remote(
  "networkGetDhcpLeases",
  341,
  struct({ network, mac: nullable(string), needResults: constant(1), flags: uint }),
  struct({
    leases: array(
      struct({
        iface: string,
        expiryTime: hyper,
        type: int,
        mac: nullable(string),
        iaid: nullable(string),
        ipAddr: string,
        prefix: uint,
        hostname: nullable(string),
        clientId: nullable(string),
      }),
      DHCP_LEASES_MAX,
    ),
    count: constant(0),
  }),
);

export const networkLookupByUuid = remote("networkLookupByUuid", 47, struct({ uuid }), onlyNetwork);
/**
 * Changes a part of a network. `command` is a virNetworkUpdateCommand, `section` a virNetworkUpdateSection; before
 * libvirt 7.2 the daemon took the two the other way round. `parentIndex` says in which `<ip>`; -1 leaves it open.
 */
export const networkUpdate = remoteVoid(
  "networkUpdate",
  291,
  struct({ network, command: uint, section: uint, parentIndex: int, xml: string, flags: uint }),
);
