import type { Duplex } from "node:stream";
import type { InstallationId, VmId } from "../lib/ids.ts";
import type { Call } from "./call.ts";
import type { AgentState, GuestAgentAbility } from "./guest-agent-ability.ts";
import type { DomainNic, NetworkAbility, NicAbility, SeenAddress } from "./network-ability.ts";
import type { VolumeAbility, VolumeDownload, VolumeFormat, VolumeRef } from "./volume-ability.ts";

export type { Call } from "./call.ts";
export type * from "./guest-agent-ability.ts";
export type * from "./network-ability.ts";
export type * from "./volume-ability.ts";

/**
 * The contract between Drover and a hypervisor. A driver turns a host's URI into a connection; a connection has
 * about ten required members, and optional ones for abilities that not every hypervisor has. An ability that is
 * lacking is absent: there is no method that throws "not supported".
 *
 * Every call that changes something is idempotent by observation: called again after it already took effect
 * (killed before the record), it finds its own effect and succeeds. What a call would change must carry the mark
 * of the target's installation: else it rejects with `foreign` and changes nothing.
 */

export const HYPERVISORS = ["kvm", "xen"] as const;
export type Hypervisor = (typeof HYPERVISORS)[number];
export const GUEST_TYPES = ["hvm", "pvh", "pv"] as const;
export type GuestType = (typeof GUEST_TYPES)[number];
/**
 * What finds a guest's kernel where none is given: a BIOS, or GRUB for Xen (pvgrub), which runs inside a pv or pvh guest
 * in the BIOS's place.
 */
export const FIRMWARES = ["bios", "uefi", "pvgrub"] as const;
export type Firmware = (typeof FIRMWARES)[number];
export type DriverName = "libvirt" | "xl" | "sim";
export type Accelerator = "auto" | "kvm" | "tcg";

/** Power as a hypervisor shows it. `unknown` is never reported by a driver: it is what a silent host leaves. */
export type ObservedPower = "running" | "paused" | "saved" | "off" | "crashed";

/** What a host can do for a guest type, as declared by its driver and found by its probe. */
export const CAPABILITIES = [
  "start",
  "stop",
  "gracefulStop",
  "reboot",
  "reset",
  "pause",
  "save",
  "consoleLog",
  "serialConsole",
  "vnc",
  "screenshot",
  "volumes",
  "diskHotplug",
  "volumeDownload",
  "directKernel",
  "firmwareBios",
  "firmwareUefi",
  "firmwarePvgrub",
  "networks",
  "nicHotplug",
  "guestAgent",
  "events",
] as const;
export type Capability = (typeof CAPABILITIES)[number];

export type HypervisorErrorReason =
  /** No connection, or it broke, or the host does not answer: the call may or may not have happened. */
  | "unreachable"
  /** Our own deadline passed: the call may still run on the host. */
  | "timeout"
  /** The caller's signal ended the call: it may still run on the host. */
  | "aborted"
  | "host-key-unknown"
  | "authentication"
  | "not-found"
  | "already-exists"
  /** The domain carries another installation's mark, or none: it is listed and observed, but never changed. */
  | "foreign"
  /** The domain is in a state that does not allow the call. */
  | "invalid-state"
  /** The host refused the specification: wrong, whoever asks and however often. */
  | "invalid-spec"
  | "no-capacity"
  | "storage-full"
  | "unsupported"
  /** Another operation of the hypervisor is under way on the domain. */
  | "busy"
  | "failed";

const RETRYABLE: ReadonlySet<HypervisorErrorReason> = new Set(["unreachable", "timeout", "busy", "failed"]);

/** The one error of all drivers. `retryable` says whether the same call can succeed later without a change. */
export class HypervisorError extends Error {
  override readonly name = "HypervisorError";
  readonly reason: HypervisorErrorReason;
  readonly retryable: boolean;
  /** Facts for the client, such as the fingerprint of an unknown host key. */
  readonly details: Readonly<Record<string, string>> | undefined;

  constructor(
    reason: HypervisorErrorReason,
    message: string,
    options: { cause?: unknown; retryable?: boolean; details?: Readonly<Record<string, string>> } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.reason = reason;
    this.retryable = options.retryable ?? RETRYABLE.has(reason);
    this.details = options.details;
  }
}

/** Credentials of a host, decrypted for the connection only. */
export interface HostCredentials {
  readonly ssh?: { readonly privateKey: string; readonly knownHosts?: string };
  readonly tls?: {
    readonly caCertificate: string;
    readonly clientCertificate: string;
    readonly clientKey: string;
  };
}

export interface HostTarget {
  readonly uri: string;
  readonly credentials: HostCredentials;
  readonly accelerator: Accelerator;
  readonly installationId: InstallationId;
  /**
   * Stands for the owner that connects: of two owners of a machine the later one's is greater, as text. A driver whose
   * calls run on apart from their connection has the host refuse what comes with a lesser one. Absent for a connection
   * that only reads.
   */
  readonly fence?: string;
}

export interface HostDriver {
  readonly name: DriverName;
  /** URI schemes, without the colon, that this driver serves, such as `qemu+ssh`. */
  readonly schemes: readonly string[];
  /** Checks a URI without touching the host. Returns what it says, or what is wrong with it. */
  parseUri(uri: string): ParsedHostUri | { readonly error: string };
  /** What the driver can do at best; a host offers what is declared here and found by its probe. */
  declares(hypervisor: Hypervisor, guestType: GuestType): ReadonlySet<Capability>;
  /** Opens a connection. Rejects with a HypervisorError (`unreachable`, `host-key-unknown`, `authentication`). */
  connect(target: HostTarget, options: { readonly signal: AbortSignal }): Promise<HostConnection>;
}

export interface ParsedHostUri {
  readonly hypervisor: Hypervisor;
  /** The URI in its canonical form; holds no secret. */
  readonly uri: string;
}

/** One connection to one host. It never reconnects by itself: when it is lost, `onClose` says so once. */
export interface HostConnection {
  /** What the host is and has. */
  probe(call: Call): Promise<HostFacts>;
  /** Everything on the host, complete, or an error: never a part. */
  inventory(call: Call): Promise<HostInventory>;
  /** One domain, or null when the host says that there is none of this UUID. */
  observeDomain(uuid: string, call: Call): Promise<ObservedDomain | null>;
  /**
   * Makes the domain known to the host, switched off. The same UUID again: the definition is replaced, which shows
   * at the next start. Another domain of this name: `already-exists`.
   */
  defineDomain(spec: DomainSpec, call: Call): Promise<void>;
  /**
   * Starts a defined domain. One that runs or is paused already is left alone, and what saves its memory at this moment
   * is given up, or waited for with `busy`; none of this UUID: `not-found`, as in all calls below save removeDomain. A
   * disk, kernel or network that is missing rejects and leaves the domain off.
   */
  startDomain(uuid: string, call: Call): Promise<void>;
  /** Asks the guest to power off (ACPI or its like) and returns at once. One that is off already is left alone. */
  requestShutdown(uuid: string, call: Call): Promise<void>;
  /** Cuts the power, and throws saved memory away. One that is off already is left alone. */
  forceOffDomain(uuid: string, call: Call): Promise<void>;
  /**
   * Makes the host forget a domain that is off or crashed, with all that belongs to the definition, not its volumes.
   * None: fine. One that is on: `invalid-state`.
   */
  removeDomain(uuid: string, call: Call): Promise<void>;
  /** Calls the listener at every change that the host tells of by itself. Returns how to stop. */
  watch(listener: (event: HostEvent) => void): () => void;
  /** Calls the listener once when the connection is lost, with the reason. */
  onClose(listener: (error: HypervisorError) => void): void;
  close(): Promise<void>;

  /** Pausing a paused domain and resuming a running one are fine; one that is off: `invalid-state`. */
  readonly pause?: {
    pauseDomain(uuid: string, call: Call): Promise<void>;
    resumeDomain(uuid: string, call: Call): Promise<void>;
  };
  /** Asks the guest to restart by itself and returns at once. One that is off: `invalid-state`, as in resetDomain. */
  readonly rebootDomain?: (uuid: string, call: Call) => Promise<void>;
  /** Restarts the machine as its reset button does, whatever the guest does. */
  readonly resetDomain?: (uuid: string, call: Call) => Promise<void>;
  /**
   * Writes a running or paused guest's memory to the host's disk and switches it off: `saved`. startDomain brings it
   * back as it was, running, and uses the saved memory up. forceOffDomain and removeDomain of a saved domain throw the
   * memory away. One that is saved already is left alone; one that is off or crashed: `invalid-state`. Another save of it
   * that is under way is waited for. It takes as long as the memory takes, and holds up no other domain.
   */
  readonly saveDomain?: (uuid: string, call: Call) => Promise<void>;
  readonly volumes?: VolumeAbility;
  readonly diskHotplug?: DiskHotplugAbility;
  /**
   * Opens a volume's content as it stands in its pool, such as a whole qcow2 file. The call's limits are for the opening;
   * destroying the stream ends it. No such volume: `not-found`.
   */
  readonly downloadVolume?: (ref: VolumeRef, call: Call) => Promise<VolumeDownload>;
  readonly networks?: NetworkAbility;
  readonly nics?: NicAbility;
  readonly guestAgent?: GuestAgentAbility;
  readonly consoleLog?: ConsoleLogAbility;
  /**
   * Opens a running or paused guest's serial console: what the guest writes from now on, and what it is to read. One
   * at a time has it: a second one is `busy`, or takes it over with `force`, which ends the first. The stream ends,
   * or fails, when the guest goes off, another takes over or the connection to the host is lost; destroying it gives
   * the console free. The call's limits are for the opening. One that is off: `invalid-state`.
   */
  readonly openSerialConsole?: (
    uuid: string,
    options: { readonly force: boolean },
    call: Call,
  ) => Promise<Duplex>;
  /**
   * Opens a running or paused guest's screen: the bytes of the RFB protocol (RFC 6143), from the server's greeting on,
   * without a password. Several at a time may. It ends as a serial console does. One that is off: `invalid-state`.
   */
  readonly openVnc?: (uuid: string, call: Call) => Promise<Duplex>;
  /** What a running or paused guest's first screen shows, as a PNG. One that is off: `invalid-state`. */
  readonly takeScreenshot?: (uuid: string, call: Call) => Promise<Uint8Array>;
}

/**
 * Disks of a running or paused guest, and of its definition with it. A disk is known by its volume. One that is off:
 * `invalid-state`, for then it is defined anew.
 */
export interface DiskHotplugAbility {
  /** Gives the guest one more disk. One that has it already: fine. A volume that is not there: `invalid-spec`. */
  attachDisk(uuid: string, disk: DomainDisk, call: Call): Promise<void>;
  /**
   * Asks the guest to let go of a disk, and gives it some seconds. True: the guest and its definition have it no more;
   * false: the guest still has it, and so has its definition. Asked again it may be as far by then.
   */
  detachDisk(uuid: string, disk: DomainDisk, call: Call): Promise<boolean>;
  /** Grows a disk under the guest, which sees its new size; never shrinks it. */
  growDisk(uuid: string, disk: DomainDisk, capacityBytes: number, call: Call): Promise<void>;
}

export interface ConsoleLogAbility {
  /** The last bytes of the serial console's log; empty when the guest has written nothing yet. */
  readConsoleLog(domain: DomainRef, maxBytes: number, call: Call): Promise<Uint8Array>;
  /** Removes the log and its rotated parts. None: fine. */
  deleteConsoleLog(domain: DomainRef, call: Call): Promise<void>;
}

/** A domain by what never changes in it, with the pool that holds its console log. */
export interface DomainRef {
  readonly uuid: string;
  readonly name: string;
  readonly pool: string;
}

/** All that a driver needs to define a guest. Everything is resolved: no defaults are chosen below this line. */
export interface DomainSpec {
  readonly uuid: VmId;
  /** `<vm name>-<last 12 hex digits of the id>`. */
  readonly name: string;
  readonly installationId: InstallationId;
  readonly guestType: GuestType;
  readonly cpuCount: number;
  readonly memoryMib: number;
  readonly boot:
    | { readonly kind: "firmware"; readonly firmware: Firmware }
    | {
        readonly kind: "kernel";
        readonly kernel: VolumeRef;
        readonly initrd: VolumeRef | null;
        readonly commandLine: string;
      };
  readonly disks: readonly DomainDisk[];
  readonly nics: readonly DomainNic[];
  /** The pool whose directory holds the serial console's log. */
  readonly consolePool: string;
}

export interface DomainDisk {
  /** Unique in the domain. */
  readonly name: string;
  /**
   * A cdrom can be read only, by the guest as by the host. Where a guest type has no such device it is a disk that
   * cannot be written.
   */
  readonly kind: "disk" | "cdrom";
  readonly volume: VolumeRef;
  readonly format: VolumeFormat;
}

export interface HostFacts {
  /** The machine's own UUID where it tells one: the same machine registered twice is refused by it. */
  readonly hostUuid: string | null;
  readonly hostname: string;
  readonly hypervisor: Hypervisor;
  readonly hypervisorVersion: string;
  /** Version of the toolstack, such as libvirt's. */
  readonly toolstackVersion: string;
  readonly architecture: string;
  readonly cpu: {
    readonly model: string;
    readonly count: number;
    readonly sockets: number;
    readonly coresPerSocket: number;
    readonly threadsPerCore: number;
  };
  readonly memoryMib: number;
  readonly numaCells: readonly NumaCell[];
  /** What guests run on here: hardware, or plain emulation (`tcg`); null where it does not apply. */
  readonly accelerator: "kvm" | "tcg" | null;
  readonly guestTypes: readonly {
    readonly guestType: GuestType;
    readonly capabilities: readonly Capability[];
  }[];
}

export interface NumaCell {
  readonly id: number;
  readonly memoryMib: number;
  readonly cpus: readonly number[];
}

export interface HostInventory {
  readonly domains: readonly ObservedDomain[];
  readonly networks: readonly ObservedNetwork[];
  readonly pools: readonly ObservedPool[];
  readonly memoryFreeMib: number | null;
  /** IP addresses that were seen behind MAC addresses; absent where the driver sees none. */
  readonly addresses?: readonly SeenAddress[] | undefined;
}

export interface ObservedDomain {
  readonly uuid: string;
  readonly name: string;
  readonly power: ObservedPower;
  /** Why, in the hypervisor's word, such as `shutdown`, `destroyed`, `crashed`, `ioerror`; null where it tells none. */
  readonly reason: string | null;
  readonly cpuCount: number;
  readonly memoryMib: number;
  /** Whose domain this is by the mark it carries; null where it carries none. */
  readonly installationId: string | null;
  readonly vmId: string | null;
  readonly autostart: boolean;
  /** The agent in the guest; absent: there is no way to one. One that is off has none that is connected. */
  readonly agent?: AgentState | undefined;
}

export interface ObservedNetwork {
  readonly name: string;
  readonly uuid: string | null;
  readonly active: boolean;
  readonly bridge: string | null;
  /** `nat`, `route`, `bridge`, `isolated` and so on, as the host calls it. */
  readonly mode: string;
}

export interface ObservedPool {
  readonly name: string;
  readonly uuid: string | null;
  readonly active: boolean;
  /** `dir`, `logical`, `rbd` and so on, as the host calls it. */
  readonly type: string;
  readonly path: string | null;
  readonly capacityBytes: number;
  readonly availableBytes: number;
}

/** What a host tells by itself. A hint to look, never a proof. */
export type HostEvent =
  | {
      readonly kind: "domain-changed";
      readonly uuid: string;
      readonly detail: string;
    }
  /** The driver lost track (a queue overflowed, it reconnected inside): a complete inventory is due. */
  | { readonly kind: "resync" };
