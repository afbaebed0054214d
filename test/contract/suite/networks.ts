import { randomBytes } from "node:crypto";
import { expect } from "vitest";
import type {
  HostConnection,
  NetworkAbility,
  NetworkSpec,
  StaticLease,
} from "../../../src/hypervisors/hypervisor.ts";
import { type InstallationId, type NetworkId, newId } from "../../../src/lib/ids.ts";
import type { Behaviour } from "./record.ts";
import { expectRefusal, present, type Scene } from "./scene.ts";

/** Networks that are made on the host: each call twice, and never another's. */
export function networkBehaviours(scene: Scene, behaviour: Behaviour): void {
  const networks = (connection: HostConnection = scene.connection): NetworkAbility =>
    present(connection.networks);
  let subnets = 0;
  const spec = (overrides: Partial<NetworkSpec> = {}): NetworkSpec => {
    const uuid = newId<NetworkId>();
    scene.afterwards(() => networks().removeNetwork(uuid, scene.call()));
    return {
      ...{ uuid, name: `contract-${uuid.slice(-12)}`, installationId: scene.world.target.installationId },
      forward: { kind: "isolated", newBridge: `dv${uuid.slice(-12)}` },
      ipv4: { address: `10.77.${subnets++}.1`, prefix: 24 },
      ipv6: null,
      ...overrides,
    };
  };
  const made = async (overrides: Partial<NetworkSpec> = {}): Promise<NetworkSpec> => {
    const network = spec(overrides);
    await networks().ensureNetwork(network, scene.call());
    return network;
  };
  const leasesOf = async ({ uuid }: NetworkSpec): Promise<readonly StaticLease[]> =>
    (await networks().observeNetwork(uuid, scene.call()))?.leases ?? [];
  const addressIn = ({ ipv4 }: NetworkSpec, last: number): string =>
    `${(ipv4?.address ?? "").replace(/\d+$/, "")}${last}`;

  for (const kind of ["nat", "routed", "isolated"] as const) {
    behaviour("networks", `a network of kind ${kind} is made once, is up, and is listed`, async () => {
      const uuid = newId<NetworkId>();
      const network = await made({ forward: { kind, newBridge: `dv${uuid.slice(-12)}` } });
      await networks().ensureNetwork(network, scene.call());
      expect(await networks().observeNetwork(network.uuid, scene.call())).toEqual({
        active: true,
        leases: [],
      });
      const { networks: listed } = await scene.connection.inventory(scene.call());
      const mode = { nat: "nat", routed: "route", isolated: "isolated" }[kind];
      expect(listed.filter(({ name }) => name === network.name)).toMatchObject([
        { uuid: network.uuid, active: true, bridge: `dv${uuid.slice(-12)}`, mode },
      ]);
    });
  }

  behaviour("networks", "a removed network is gone, and removing it again is fine", async () => {
    const network = await made();
    await networks().removeNetwork(network.uuid, scene.call());
    expect(await networks().observeNetwork(network.uuid, scene.call())).toBeNull();
    await networks().removeNetwork(network.uuid, scene.call());
    await networks().releaseAddress(network.uuid, "52:54:00:00:00:01", scene.call());
  });

  behaviour("networks", "an address goes to one MAC address, whatever was said before", async () => {
    const network = await made();
    const [first, second] = ["52:54:00:00:00:01", "52:54:00:00:00:02"] as const;
    const reserve = (macAddress: string, last: number) =>
      networks().reserveAddress(
        network.uuid,
        { macAddress, ipv4Address: addressIn(network, last) },
        scene.call(),
      );
    await reserve(first, 10);
    await reserve(first, 10);
    expect(await leasesOf(network)).toEqual([{ macAddress: first, ipv4Address: addressIn(network, 10) }]);
    await reserve(first, 11);
    expect(await leasesOf(network)).toEqual([{ macAddress: first, ipv4Address: addressIn(network, 11) }]);
    await reserve(second, 11);
    expect(await leasesOf(network)).toEqual([{ macAddress: second, ipv4Address: addressIn(network, 11) }]);
    await networks().releaseAddress(network.uuid, second, scene.call());
    await networks().releaseAddress(network.uuid, second, scene.call());
    expect(await leasesOf(network)).toEqual([]);
  });

  behaviour("networks", "many addresses at once are all kept", async () => {
    const network = await made();
    const leases = Array.from({ length: 12 }, (_, n) => ({
      macAddress: `52:54:00:00:01:${(16 + n).toString(16)}`,
      ipv4Address: addressIn(network, 20 + n),
    }));
    await Promise.all(leases.map((lease) => networks().reserveAddress(network.uuid, lease, scene.call())));
    const kept = (await leasesOf(network)).toSorted((a, b) => (a.macAddress < b.macAddress ? -1 : 1));
    expect(kept).toEqual(leases);
  });

  behaviour("networks", "a network that is not there, or whose name another has, says so", async () => {
    const lease = { macAddress: "52:54:00:00:00:01", ipv4Address: "10.77.0.9" };
    await expectRefusal(networks().reserveAddress(newId<NetworkId>(), lease, scene.call()), "not-found");
    const network = await made();
    const twin = spec({ name: network.name });
    await expectRefusal(networks().ensureNetwork(twin, scene.call()), "already-exists");
  });

  behaviour("networks", "another installation's network is left alone", async () => {
    const network = await made();
    const target = { ...scene.world.target, installationId: newId<InstallationId>() };
    const signal = AbortSignal.timeout(scene.world.patienceMs);
    const stranger = await scene.world.driver.connect(target, { signal });
    scene.afterwards(() => stranger.close());
    const theirs = networks(stranger);
    const lease = { macAddress: "52:54:00:00:00:01", ipv4Address: addressIn(network, 9) };
    await expectRefusal(
      theirs.ensureNetwork({ ...network, installationId: target.installationId }, scene.call()),
      "foreign",
    );
    await expectRefusal(theirs.reserveAddress(network.uuid, lease, scene.call()), "foreign");
    await expectRefusal(theirs.removeNetwork(network.uuid, scene.call()), "foreign");
    expect(await networks().observeNetwork(network.uuid, scene.call())).toEqual({ active: true, leases: [] });
  });

  behaviour("networks", "a guest gets its address by DHCP, and it is seen", async () => {
    const network = await made();
    const macAddress = `52:54:00:${(randomBytes(3).toString("hex").match(/../g) ?? []).join(":")}`;
    const lease = { macAddress, ipv4Address: addressIn(network, 42) };
    await networks().reserveAddress(network.uuid, lease, scene.call());
    await scene.start({ nics: [{ name: "eth0", network: network.name, macAddress }] });
    await scene.eventually("the address is leased", async () => {
      const { addresses = [] } = await scene.connection.inventory(scene.call());
      return addresses.some(
        ({ address, source, macAddress: mac }) =>
          mac === macAddress && address === lease.ipv4Address && source === "lease",
      );
    });
  });
}
