import { simControl } from "../../src/hypervisors/sim/sim-control-store.ts";
import type { TestDatabase } from "../fixtures/database.ts";
import type { Rig } from "./campaign.ts";
import type { World } from "./complaints.ts";
import { kernelContent } from "./image-server.ts";
import { NIC_SPEC } from "./scenes.ts";

/** Simulated hosts, as many as operations act at once: none has to wait for another. */
export async function openSimRig(database: TestDatabase, hostCount: number): Promise<Rig> {
  const control = await simControl(database.url);
  const uriOf = (name: string): string => `sim+kvm://${name}`;
  const names = Array.from({ length: hostCount }, (_, index) => `host-${index}`);
  return {
    hosts: names.map((name) => ({ name, registration: { uri: uriOf(name) } })),
    newHostUri: uriOf,
    deafen: (vmId, host) => control.ignoreShutdown(uriOf(host), vmId),
    guest: { kernel: kernelContent, spec: NIC_SPEC, takesDisks: true },
    makesNetworks: true,
    world: () => readSimWorld(database.db),
    close: () => control.close(),
  };
}

/** What all simulated hosts of a database hold. */
export async function readSimWorld(db: TestDatabase["db"]): Promise<World> {
  const domains = await db.$queryRaw<
    { uuid: string; power: string }[]
  >`SELECT uuid, power FROM sim.domain_now`;
  const volumes = await db.$queryRaw<{ name: string }[]>`SELECT name FROM sim.volume`;
  const logs = await db.$queryRaw<{ uuid: string }[]>`SELECT uuid FROM sim.console_log`;
  const networks = await db.$queryRaw<{ uuid: string; macs: string[] }[]>`
    SELECT uuid, jsonb_path_query_array(leases, '$[*].macAddress') AS macs FROM sim.network`;
  return {
    domains: new Map(domains.map(({ uuid, power }) => [uuid, power])),
    volumes: volumes.map(({ name }) => name),
    consoleLogs: logs.map(({ uuid }) => uuid),
    networks: networks.map(({ uuid }) => uuid),
    leases: networks.flatMap(({ macs }) => macs),
  };
}
