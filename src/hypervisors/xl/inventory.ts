import type { Call, HostInventory, ObservedNetwork, ObservedPool } from "../hypervisor.ts";
import { lookAtAll } from "./domain-look.ts";
import type { HostContext } from "./host-context.ts";
import { parseBridges, parseDefaultBridge } from "./parse-bridges.ts";
import { type FileSystemRoom, parseFileSystem } from "./parse-file-system.ts";
import { parseInfo } from "./parse-info.ts";
import { Sections } from "./parse-sections.ts";
import { parseVolumeGroups } from "./parse-volume-groups.ts";
import { DEFAULT_NETWORK } from "./spec-parts.ts";
import type { XlNetwork, XlPool } from "./uri.ts";

/** Everything on the host, complete or an error. */
export async function readInventory(host: HostContext, call: Call): Promise<HostInventory> {
  const directories = host.pools.map(({ path }) => path);
  const [domains, told] = await Promise.all([
    lookAtAll(host, call),
    host.link.tell("resources", directories, call),
  ]);
  const resources = new Sections(told);
  return {
    domains,
    networks: networksOf(resources, host.networks),
    pools: [...directoryPools(resources, host.pools), ...volumeGroups(resources, host.pools)],
    memoryFreeMib: parseInfo(resources.text("info")).memoryFreeMib,
  };
}

/** Bridges under their own names, and once more under each name that stands for one. */
function networksOf(resources: Sections, aliases: readonly XlNetwork[]): readonly ObservedNetwork[] {
  const bridges = parseBridges(resources.text("bridges"));
  const down = new Set(resources.lines("down").map((path) => path.split("/").at(-2)));
  const named: XlNetwork[] = [
    ...aliases,
    { name: DEFAULT_NETWORK, bridge: parseDefaultBridge(resources.text("xl.conf")) },
    ...bridges.map((bridge) => ({ name: bridge, bridge })),
  ];
  const first = named.filter(
    ({ name, bridge }, index) =>
      bridges.includes(bridge) && named.findIndex((other) => other.name === name) === index,
  );
  return first.map(({ name, bridge }) => ({
    name,
    uuid: null,
    active: !down.has(bridge),
    bridge,
    mode: "bridge",
  }));
}

function directoryPools(resources: Sections, pools: readonly XlPool[]): readonly ObservedPool[] {
  const rooms = resources.text("rooms").split("\n");
  return pools.map(({ name, path }, index) => {
    const room = roomIn(rooms[index] ?? "");
    const { capacityBytes, availableBytes } = room ?? { capacityBytes: 0, availableBytes: 0 };
    return { name, uuid: null, active: room !== null, type: "dir", path, capacityBytes, availableBytes };
  });
}

/** Null for a directory that is not there. */
function roomIn(line: string): FileSystemRoom | null {
  return line === "" ? null : parseFileSystem(line);
}

/** Volume groups are pools by their own names. A pool of the URI's has its name to itself. */
function volumeGroups(resources: Sections, pools: readonly XlPool[]): readonly ObservedPool[] {
  const text = resources.text("groups");
  if (text.trim() === "") return [];
  return parseVolumeGroups(text)
    .filter((group) => pools.every(({ name }) => name !== group.name))
    .map((group) => ({ ...group, uuid: null, active: true, type: "logical", path: null }));
}
