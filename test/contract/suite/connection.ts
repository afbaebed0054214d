import { expect } from "vitest";
import type { HypervisorError } from "../../../src/hypervisors/hypervisor.ts";
import type { Behaviour } from "./record.ts";
import { expectRefusal, type Scene } from "./scene.ts";

/** What a host tells about itself, and how a connection begins and ends. */
export function connectionBehaviours(scene: Scene, behaviour: Behaviour): void {
  behaviour("required", "its URI has one canonical form, which says the hypervisor", async () => {
    const { driver, target } = scene.world;
    const parsed = driver.parseUri(target.uri);
    if ("error" in parsed) throw new Error(parsed.error);
    expect(parsed.hypervisor).toBe(scene.contract.hypervisor);
    expect(driver.parseUri(parsed.uri)).toEqual(parsed);
    expect(driver.schemes).toContain(parsed.uri.split(":")[0]);
  });

  behaviour("required", "a URI with an unknown parameter is refused", async () => {
    const { driver, target } = scene.world;
    const uri = `${target.uri}${target.uri.includes("?") ? "&" : "?"}command=/bin/true`;
    expect(driver.parseUri(uri)).toHaveProperty("error");
  });

  behaviour("required", "the probe tells a consistent machine", async () => {
    const facts = await scene.connection.probe(scene.call());
    expect(facts.hypervisor).toBe(scene.contract.hypervisor);
    expect(facts.hostname).not.toBe("");
    expect(facts.cpu.count).toBeGreaterThan(0);
    expect(facts.memoryMib).toBeGreaterThan(0);
    for (const cell of facts.numaCells)
      expect(cell.cpus.every((cpu) => Number.isInteger(cpu) && cpu >= 0)).toBe(true);
    const cpus = facts.numaCells.flatMap((cell) => cell.cpus);
    expect(new Set(cpus).size).toBe(cpus.length);
  });

  behaviour("required", "the probe tells the same machine over every connection", async () => {
    const other = await scene.connect();
    const [first, second] = await Promise.all(
      [scene.connection, other].map((one) => one.probe(scene.call())),
    );
    expect(second).toEqual(first);
  });

  behaviour("required", "the inventory has the pools and networks that guests use", async () => {
    const { pools, networks, memoryFreeMib } = await scene.connection.inventory(scene.call());
    const { pool, network } = scene.world;
    const ours = pools.find(({ name }) => name === pool);
    expect(ours).toMatchObject({ name: pool, active: true });
    expect(ours?.capacityBytes).toBeGreaterThan(0);
    expect(ours?.availableBytes).toBeLessThanOrEqual(ours?.capacityBytes ?? 0);
    if (network !== null)
      expect(networks).toContainEqual(expect.objectContaining({ name: network, active: true }));
    if (memoryFreeMib !== null) expect(memoryFreeMib).toBeGreaterThanOrEqual(0);
  });

  behaviour("required", "a call after the close is refused, and no loss is told", async () => {
    const connection = await scene.connect();
    const told: HypervisorError[] = [];
    connection.onClose((error) => told.push(error));
    await connection.close();
    await expectRefusal(connection.inventory(scene.call()), "unreachable");
    await connection.close();
    expect(told).toEqual([]);
  });

  behaviour("required", "a connect that is given up rejects", async () => {
    const { driver, target } = scene.world;
    await expectRefusal(driver.connect(target, { signal: AbortSignal.abort() }), "aborted", "unreachable");
  });

  const breakConnections = scene.contract.hooks?.breakConnections;
  if (breakConnections === undefined) return;

  behaviour("required", "a lost connection tells so once, and refuses every later call", async () => {
    const connection = await scene.connect();
    scene.afterwards(() => scene.reconnect());
    const told: HypervisorError[] = [];
    connection.onClose((error) => told.push(error));
    await breakConnections(scene.world);
    await scene.eventually("the loss", () => told.length > 0);
    await expectRefusal(connection.inventory(scene.call()), "unreachable");
    await expectRefusal(connection.startDomain(scene.spec().uuid, scene.call()), "unreachable");
    await connection.close();
    expect(told.map(({ reason }) => reason)).toEqual(["unreachable"]);
  });

  behaviour("required", "after a loss a new connection finds everything as it was", async () => {
    const spec = await scene.define();
    scene.afterwards(() => scene.reconnect());
    await breakConnections(scene.world);
    const connection = await scene.connect();
    expect(await connection.observeDomain(spec.uuid, scene.call())).toMatchObject({
      name: spec.name,
      power: "off",
    });
  });
}
