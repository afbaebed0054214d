/** Calls about one domain. Flags are libvirt's, by the name of the call. Numbers: enum remote_procedure. */
import {
  array,
  boolean,
  int,
  nullable,
  string,
  struct,
  uchar,
  uhyper,
  uint,
  ushort,
  uuid,
} from "../codec.ts";
import { qemu, remote, remoteVoid } from "../procedure.ts";
import { domain } from "../structures.ts";

const INTERFACE_MAX = 2048;
const IP_ADDRESS_MAX = 2048;

const onlyDomain = struct({ domain });
const withFlags = struct({ domain, flags: uint });
const withXml = struct({ domain, xml: string, flags: uint });

export const domainLookupByUuid = remote("domainLookupByUuid", 24, struct({ uuid }), onlyDomain);
export const domainLookupByName = remote("domainLookupByName", 23, struct({ name: string }), onlyDomain);

/** Memory in KiB, `cpuTime` in ns, `state` as in domainGetState. */
export const domainGetInfo = remote(
  "domainGetInfo",
  16,
  onlyDomain,
  struct({ state: uchar, maxMem: uhyper, memory: uhyper, nrVirtCpu: ushort, cpuTime: uhyper }),
);
/** `state` is a virDomainState; what `reason` means depends on it. */
export const domainGetState = remote("domainGetState", 212, withFlags, struct({ state: int, reason: int }));
export const domainGetXmlDesc = remote("domainGetXmlDesc", 14, withFlags, struct({ xml: string }));
export const domainDefineXmlFlags = remote(
  "domainDefineXmlFlags",
  350,
  struct({ xml: string, flags: uint }),
  onlyDomain,
);
export const domainUndefineFlags = remoteVoid("domainUndefineFlags", 231, withFlags);

export const domainCreateWithFlags = remote("domainCreateWithFlags", 196, withFlags, onlyDomain);
export const domainShutdownFlags = remoteVoid("domainShutdownFlags", 258, withFlags);
export const domainReboot = remoteVoid("domainReboot", 27, withFlags);
export const domainReset = remoteVoid("domainReset", 245, withFlags);
export const domainDestroyFlags = remoteVoid("domainDestroyFlags", 234, withFlags);
export const domainSuspend = remoteVoid("domainSuspend", 34, onlyDomain);
export const domainResume = remoteVoid("domainResume", 28, onlyDomain);

export const domainSetVcpusFlags = remoteVoid(
  "domainSetVcpusFlags",
  199,
  struct({ domain, nVcpus: uint, flags: uint }),
);
/** `memory` in KiB. */
export const domainSetMemoryFlags = remoteVoid(
  "domainSetMemoryFlags",
  204,
  struct({ domain, memory: uhyper, flags: uint }),
);

/** `type` is a virDomainMetadataType (2: an XML element); a null `metadata` removes it. */
export const domainSetMetadata = remoteVoid(
  "domainSetMetadata",
  264,
  struct({
    domain,
    type: int,
    metadata: nullable(string),
    key: nullable(string),
    uri: nullable(string),
    flags: uint,
  }),
);
export const domainGetMetadata = remote(
  "domainGetMetadata",
  265,
  struct({ domain, type: int, uri: nullable(string), flags: uint }),
  struct({ metadata: string }),
);

export const domainGetAutostart = remote(
  "domainGetAutostart",
  15,
  onlyDomain,
  struct({ autostart: boolean }),
);

/** `result` is 1 when there is one. */
export const domainHasManagedSaveImage = remote(
  "domainHasManagedSaveImage",
  183,
  withFlags,
  struct({ result: int }),
);
export const domainManagedSave = remoteVoid("domainManagedSave", 182, withFlags);
export const domainManagedSaveRemove = remoteVoid("domainManagedSaveRemove", 184, withFlags);
export const domainAbortJob = remoteVoid("domainAbortJob", 164, onlyDomain);
/** `type` is a virDomainJobType: 0 when no job is under way. Times in ms, the rest in bytes. */
export const domainGetJobInfo = remote(
  "domainGetJobInfo",
  163,
  onlyDomain,
  struct({
    type: int,
    timeElapsed: uhyper,
    timeRemaining: uhyper,
    dataTotal: uhyper,
    dataProcessed: uhyper,
    dataRemaining: uhyper,
    memTotal: uhyper,
    memProcessed: uhyper,
    memRemaining: uhyper,
    fileTotal: uhyper,
    fileProcessed: uhyper,
    fileRemaining: uhyper,
  }),
);

/** `source` is a virDomainInterfaceAddressesSource: 0 DHCP leases, 1 guest agent, 2 ARP table. */
export const domainInterfaceAddresses = remote(
  "domainInterfaceAddresses",
  353,
  struct({ domain, source: uint, flags: uint }),
  struct({
    interfaces: array(
      struct({
        name: string,
        hwAddr: nullable(string),
        addrs: array(struct({ type: int, addr: string, prefix: uint }), IP_ADDRESS_MAX),
      }),
      INTERFACE_MAX,
    ),
  }),
);

export const domainAttachDeviceFlags = remoteVoid("domainAttachDeviceFlags", 160, withXml);
export const domainDetachDeviceFlags = remoteVoid("domainDetachDeviceFlags", 161, withXml);
export const domainUpdateDeviceFlags = remoteVoid("domainUpdateDeviceFlags", 174, withXml);

/** `disk` is a target such as `vda`, or a path. Flag 1: `size` is in bytes, else in KiB. */
export const domainBlockResize = remoteVoid(
  "domainBlockResize",
  251,
  struct({ domain, disk: string, size: uhyper, flags: uint }),
);

/** A stream from the host: the picture, of type `mime`. */
export const domainScreenshot = remote(
  "domainScreenshot",
  211,
  struct({ domain, screen: uint, flags: uint }),
  struct({ mime: nullable(string) }),
);
/**
 * A stream both ways: the console's bytes. A null `devName` is the first console. Flag 1 (VIR_DOMAIN_CONSOLE_FORCE)
 * takes it from whoever has it open; without, an open one is refused.
 */
export const domainOpenConsole = remoteVoid(
  "domainOpenConsole",
  201,
  struct({ domain, devName: nullable(string), flags: uint }),
);

/** Passes a command (JSON) to the agent in the guest. `timeout` in seconds, -2 blocks, -1 the default. */
export const qemuDomainAgentCommand = qemu(
  "qemuDomainAgentCommand",
  3,
  struct({ domain, cmd: string, timeout: int, flags: uint }),
  struct({ result: nullable(string) }),
);
