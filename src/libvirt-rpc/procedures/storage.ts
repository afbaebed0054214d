/** Calls about storage pools and their volumes. Sizes in bytes. Numbers: enum remote_procedure. */
import { array, boolean, char, constant, string, struct, uchar, uhyper, uint } from "../codec.ts";
import { remote, remoteVoid } from "../procedure.ts";
import { pool, volume } from "../structures.ts";

const POOL_LIST_MAX = 16_384;
const VOLUME_LIST_MAX = 16_384;

const onlyPool = struct({ pool });
const poolWithFlags = struct({ pool, flags: uint });
const onlyVolume = struct({ volume });
const volumeWithFlags = struct({ volume, flags: uint });
const volumeRange = struct({ volume, offset: uhyper, length: uhyper, flags: uint });

export const connectListAllStoragePools = remote(
  "connectListAllStoragePools",
  281,
  struct({ needResults: constant(1), flags: uint }),
  struct({ pools: array(pool, POOL_LIST_MAX), count: constant(0) }),
);
export const storagePoolLookupByName = remote(
  "storagePoolLookupByName",
  84,
  struct({ name: string }),
  onlyPool,
);
/** `state` is a virStoragePoolState: 0 inactive, 1 building, 2 running, 3 degraded, 4 inaccessible. */
export const storagePoolGetInfo = remote(
  "storagePoolGetInfo",
  87,
  onlyPool,
  struct({ state: uchar, capacity: uhyper, allocation: uhyper, available: uhyper }),
);
export const storagePoolGetXmlDesc = remote(
  "storagePoolGetXmlDesc",
  88,
  poolWithFlags,
  struct({ xml: string }),
);
export const storagePoolDefineXml = remote(
  "storagePoolDefineXml",
  77,
  struct({ xml: string, flags: uint }),
  onlyPool,
);
export const storagePoolBuild = remoteVoid("storagePoolBuild", 79, poolWithFlags);
export const storagePoolCreate = remoteVoid("storagePoolCreate", 78, poolWithFlags);
export const storagePoolRefresh = remoteVoid("storagePoolRefresh", 83, poolWithFlags);
export const storagePoolDestroy = remoteVoid("storagePoolDestroy", 80, onlyPool);
export const storagePoolUndefine = remoteVoid("storagePoolUndefine", 82, onlyPool);
export const storagePoolSetAutostart = remoteVoid(
  "storagePoolSetAutostart",
  90,
  struct({ pool, autostart: boolean }),
);
export const storagePoolListAllVolumes = remote(
  "storagePoolListAllVolumes",
  282,
  struct({ pool, needResults: constant(1), flags: uint }),
  struct({ volumes: array(volume, VOLUME_LIST_MAX), count: constant(0) }),
);

export const storageVolLookupByName = remote(
  "storageVolLookupByName",
  95,
  struct({ pool, name: string }),
  onlyVolume,
);
export const storageVolLookupByPath = remote(
  "storageVolLookupByPath",
  97,
  struct({ path: string }),
  onlyVolume,
);
export const storageVolCreateXml = remote(
  "storageVolCreateXml",
  93,
  struct({ pool, xml: string, flags: uint }),
  onlyVolume,
);
/** Creates a volume with the content of `cloneVolume`. */
export const storageVolCreateXmlFrom = remote(
  "storageVolCreateXmlFrom",
  125,
  struct({ pool, xml: string, cloneVolume: volume, flags: uint }),
  onlyVolume,
);
export const storageVolDelete = remoteVoid("storageVolDelete", 94, volumeWithFlags);
export const storageVolWipe = remoteVoid("storageVolWipe", 165, volumeWithFlags);
export const storageVolResize = remoteVoid(
  "storageVolResize",
  260,
  struct({ volume, capacity: uhyper, flags: uint }),
);
/** `type` is a virStorageVolType: 0 file, 1 block, 2 directory, 3 network. Flag 1: physical size as `allocation`. */
export const storageVolGetInfoFlags = remote(
  "storageVolGetInfoFlags",
  378,
  volumeWithFlags,
  struct({ type: char, capacity: uhyper, allocation: uhyper }),
);
export const storageVolGetXmlDesc = remote(
  "storageVolGetXmlDesc",
  99,
  volumeWithFlags,
  struct({ xml: string }),
);
/** `name` is the path, as the protocol calls it. */
export const storageVolGetPath = remote("storageVolGetPath", 100, onlyVolume, struct({ name: string }));

/** A stream to the host. `length` 0 is up to the volume's end. */
export const storageVolUpload = remoteVoid("storageVolUpload", 208, volumeRange);
/** A stream from the host. `length` 0 is up to the volume's end. */
export const storageVolDownload = remoteVoid("storageVolDownload", 209, volumeRange);
