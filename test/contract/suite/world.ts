import type {
  Capability,
  DomainSpec,
  GuestType,
  HostConnection,
  HostDriver,
  HostTarget,
  Hypervisor,
  VolumeRef,
} from "../../../src/hypervisors/hypervisor.ts";

/** One run of the contract suite: one driver on one kind of host, for one guest type. */
export interface DriverContract {
  /** Names the run and the file of its results, such as `sim-kvm-hvm`: lower-case letters, digits and dashes. */
  readonly name: string;
  /** Heading of its column in the table of capabilities, such as `sim, KVM`. */
  readonly title: string;
  readonly hypervisor: Hypervisor;
  readonly guestType: GuestType;
  /** What a host of this kind offers: the suite tests just this, and fails where the probe says otherwise. */
  readonly declared: readonly Capability[];
  /** False where no guest of the run can be asked to restart: that the request is refused is all that can be shown. */
  readonly guestsRestart?: boolean;
  /** Which of the optional members of `volumes` a host of this kind has, in this order; none where it has no volumes. */
  readonly volumeMembers: readonly ("overlayVolume" | "uploadPart" | "digestVolume")[];
  /** Starts what the run needs, once, before the first behaviour. */
  readonly setUp: () => Promise<ContractWorld>;
  /** What the run can do to its hosts beside the contract. A hook that is absent leaves its behaviours out. */
  readonly hooks?: ContractHooks;
}

/** The host under test, and what its test domains are made of. */
export interface ContractWorld {
  readonly driver: HostDriver;
  readonly target: HostTarget;
  /** The same host by a way on which its screens are in reach; without, `target` is one. */
  readonly screenTarget?: HostTarget;
  /** The pool that holds test volumes and console logs. */
  readonly pool: string;
  /** A network that the host has; null: test domains have no NIC. */
  readonly network: string | null;
  /** Memory of a test domain, in MiB: at least what the guest needs to come up. */
  readonly memoryMib: number;
  /** Where given, test domains boot by their firmware from a raw disk with this content, and not from the kernel. */
  readonly bootSector?: Buffer;
  /** Kernel and initrd that are in the pool already, for `directKernel`; null where it is not declared. */
  readonly kernel: {
    readonly kernel: VolumeRef;
    readonly initrd: VolumeRef | null;
    readonly commandLine: string;
  } | null;
  /**
   * What the guest writes to its console once a boot when it is up and obeys; null: test guests write nothing and
   * obey at once.
   */
  readonly bootMarker: RegExp | null;
  /** How long to wait for anything to happen before the behaviour has failed, in milliseconds: generous. */
  readonly patienceMs: number;
  readonly tearDown: () => Promise<void>;
}

/** All hooks act behind Drover's back, without the connection under test. */
export interface ContractHooks {
  /** Adds a domain that is off or running and carries this installation's mark, or none. Returns its UUID. */
  readonly addForeignDomain?: (world: ContractWorld, installationId: string | null) => Promise<string>;
  /** Takes that domain away again. */
  readonly removeForeignDomain?: (world: ContractWorld, uuid: string) => Promise<void>;
  /** Cuts a running domain's power. */
  readonly cutDomainPower?: (world: ContractWorld, uuid: string) => Promise<void>;
  /** Makes a running domain crash. */
  readonly crashDomain?: (world: ContractWorld, uuid: string) => Promise<void>;
  /** Makes the guest of a domain that is defined ignore a request to shut down: at once, or at its next boot. */
  readonly deafen?: (world: ContractWorld, spec: DomainSpec, connection: HostConnection) => Promise<void>;
  /** Breaks all connections to the host, which can be connected to again at once. */
  readonly breakConnections?: (world: ContractWorld) => Promise<void>;
  /** From now on the host answers nothing. Returns how to make it answer again. */
  readonly hang?: (world: ContractWorld) => Promise<() => Promise<void>>;
  /** Leaves no room in the pool. Returns how to give it back. */
  readonly fillPool?: (world: ContractWorld) => Promise<() => Promise<void>>;
  /** The SHA-256 of the first bytes of a volume's file or, where `bytes` is more, of all of it, in hexadecimal. */
  readonly digestOfVolume?: (world: ContractWorld, ref: VolumeRef, bytes: number) => Promise<string>;
}
