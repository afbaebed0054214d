import {
  connectGetHostname,
  connectGetLibVersion,
  connectGetVersion,
  nodeGetInfo,
} from "../../libvirt-rpc/index.ts";
import type { Call, Capability, HostFacts } from "../hypervisor.ts";
import type { LibvirtDriverType } from "./host-context.ts";
import type { HostCalls } from "./lanes.ts";
import { readMemory } from "./node-memory.ts";
import type { CpuTopology } from "./parse-capabilities.ts";
import type { Platform } from "./platform.ts";

/** What libvirt's mock has too: it keeps definitions and power, and no bytes. */
const MOCK_CAPABILITIES: readonly Capability[] = [
  "start",
  "stop",
  "gracefulStop",
  "reboot",
  "reset",
  "pause",
  "save",
  "firmwareBios",
  "events",
];

/** All that QEMU through libvirt does for us. */
export const QEMU_CAPABILITIES: readonly Capability[] = [
  ...MOCK_CAPABILITIES,
  "firmwareUefi",
  "directKernel",
  "consoleLog",
  "serialConsole",
  "vnc",
  "screenshot",
  "volumes",
  "diskHotplug",
  "volumeDownload",
  "networks",
  "nicHotplug",
  "guestAgent",
];

/** @param isOnHost whether the connection reaches the host itself, where VNC listens, and not libvirt alone */
export function capabilitiesOf(driverType: LibvirtDriverType, isOnHost: boolean): readonly Capability[] {
  if (driverType === "TEST") return MOCK_CAPABILITIES;
  return isOnHost ? QEMU_CAPABILITIES : QEMU_CAPABILITIES.filter((ability) => ability !== "vnc");
}

/** What the host is and has. */
export async function probe(
  calls: HostCalls,
  offered: readonly Capability[],
  platform: Platform,
  call: Call,
): Promise<HostFacts> {
  const [info, memory, { hostname }, { hvVer }, { libVer }] = await Promise.all([
    calls.read(nodeGetInfo, undefined, call),
    readMemory(calls, call),
    calls.read(connectGetHostname, undefined, call),
    calls.read(connectGetVersion, undefined, call),
    calls.read(connectGetLibVersion, undefined, call),
  ]);
  const { capabilities } = platform;
  return {
    hostUuid: capabilities.hostUuid,
    hostname,
    hypervisor: "kvm",
    hypervisorVersion: formatVersion(hvVer),
    toolstackVersion: formatVersion(libVer),
    architecture: capabilities.architecture,
    cpu: {
      model: capabilities.cpuModel ?? info.model,
      count: info.cpus,
      ...(capabilities.topology ?? nodeTopology(info)),
    },
    memoryMib: memory.totalMib,
    numaCells: capabilities.numaCells,
    accelerator: acceleratorOf(platform.domainType),
    guestTypes: [
      {
        guestType: "hvm",
        capabilities: offered.filter((ability) => ability !== "firmwareUefi" || platform.hasUefi),
      },
    ],
  };
}

function acceleratorOf(domainType: Platform["domainType"]): HostFacts["accelerator"] {
  switch (domainType) {
    case "kvm":
      return "kvm";
    case "qemu":
      return "tcg";
    case "test":
      return null;
  }
}

/** libvirt counts the sockets of one NUMA node. */
function nodeTopology(info: {
  readonly nodes: number;
  readonly sockets: number;
  readonly cores: number;
  readonly threads: number;
}): CpuTopology {
  return {
    sockets: info.nodes * info.sockets,
    coresPerSocket: info.cores,
    threadsPerCore: info.threads,
  };
}

/** libvirt's version number, major * 1,000,000 + minor * 1,000 + release, as `9.0.0`. */
export function formatVersion(version: bigint): string {
  const number = Number(version);
  return [Math.floor(number / 1_000_000), Math.floor(number / 1000) % 1000, number % 1000].join(".");
}
