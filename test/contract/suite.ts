import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Capability, VolumeFormat } from "../../src/hypervisors/hypervisor.ts";
import { connectionBehaviours } from "./suite/connection.ts";
import { consoleLogBehaviours } from "./suite/console-log.ts";
import { screenshotBehaviours, serialConsoleBehaviours, vncBehaviours } from "./suite/consoles.ts";
import { definitionBehaviours } from "./suite/definition.ts";
import { diskHotplugBehaviours } from "./suite/disk-hotplug.ts";
import { eventBehaviours } from "./suite/events.ts";
import { foreignBehaviours } from "./suite/foreign.ts";
import { guestAgentBehaviours } from "./suite/guest-agent.ts";
import { limitBehaviours } from "./suite/limits.ts";
import { networkBehaviours } from "./suite/networks.ts";
import { nicBehaviours } from "./suite/nics.ts";
import { powerBehaviours } from "./suite/power.ts";
import { type Behaviour, ContractRecord } from "./suite/record.ts";
import { Scene } from "./suite/scene.ts";
import { volumeContentBehaviours } from "./suite/volume-content.ts";
import { volumeDownloadBehaviours } from "./suite/volume-download.ts";
import { volumeBehaviours } from "./suite/volumes.ts";
import type { DriverContract } from "./suite/world.ts";

export type { ContractHooks, ContractWorld, DriverContract } from "./suite/world.ts";

interface Topic {
  readonly name: string;
  /** The ability without which there is nothing of this topic. */
  readonly ability?: Capability;
  readonly register: (scene: Scene, behaviour: Behaviour) => void;
}

/** Each topic registers what is declared, and nothing else: there is no other way to leave a behaviour out. */
const TOPICS: readonly Topic[] = [
  { name: "connection", register: connectionBehaviours },
  {
    name: "definition and ownership",
    register: (scene, behaviour) => {
      definitionBehaviours(scene, behaviour);
      foreignBehaviours(scene, behaviour);
    },
  },
  { name: "power", register: powerBehaviours },
  { name: "limits", register: limitBehaviours },
  { name: "events", ability: "events", register: eventBehaviours },
  { name: "console log", ability: "consoleLog", register: consoleLogBehaviours },
  { name: "serial console", ability: "serialConsole", register: serialConsoleBehaviours },
  { name: "VNC", ability: "vnc", register: vncBehaviours },
  { name: "screenshot", ability: "screenshot", register: screenshotBehaviours },
  {
    name: "volumes",
    ability: "volumes",
    register: (scene, behaviour) => {
      volumeBehaviours(scene, behaviour);
      volumeContentBehaviours(scene, behaviour);
    },
  },
  { name: "volume download", ability: "volumeDownload", register: volumeDownloadBehaviours },
  { name: "disk hotplug", ability: "diskHotplug", register: diskHotplugBehaviours },
  { name: "networks", ability: "networks", register: networkBehaviours },
  { name: "network interfaces", ability: "nicHotplug", register: nicBehaviours },
  { name: "guest agent", ability: "guestAgent", register: guestAgentBehaviours },
];

/**
 * The contract of hypervisor.ts as behaviours, run over one driver on one kind of host. What passed is written to
 * test/contract/results/<name>.json, of which docs/capabilities.md is made.
 */
export function describeDriverContract(contract: DriverContract): void {
  describe(`driver contract: ${contract.name}`, () => {
    const record = new ContractRecord(contract);
    const scene = new Scene(contract);

    beforeAll(() => scene.open());
    afterEach(() => scene.cleanUp());
    afterAll(async () => {
      await scene.close();
      record.write();
    });

    for (const { name, ability, register } of TOPICS) {
      if (ability !== undefined && !contract.declared.includes(ability)) continue;
      describe(name, () => {
        register(scene, record.behaviour);
      });
    }

    describe("declared and passed", () => {
      it("offers by its probe what the run declares", async () => {
        const facts = await scene.connection.probe(scene.call());
        const offered = facts.guestTypes.find(({ guestType }) => guestType === contract.guestType);
        expect([...(offered?.capabilities ?? [])].sort()).toEqual([...contract.declared].sort());
        const atBest = scene.world.driver.declares(contract.hypervisor, contract.guestType);
        expect(contract.declared.filter((ability) => !atBest.has(ability))).toEqual([]);
      });

      it("has the members of the abilities that some guest type of the host has, and no others", async () => {
        const facts = await scene.connection.probe(scene.call());
        const offered = new Set(facts.guestTypes.flatMap(({ capabilities }) => capabilities));
        const expected = Object.keys(MEMBERS).filter((ability) => offered.has(ability as Capability));
        const there = Object.entries(MEMBERS).filter(([, member]) => scene.connection[member] !== undefined);
        expect(there.map(([ability]) => ability)).toEqual(expected);
      });

      it("passes every ability that it declares", () => {
        const passed = record.passed();
        expect(["required" as const, ...contract.declared].filter((ability) => !passed.has(ability))).toEqual(
          [],
        );
        expect([...passed].filter((ability) => ability !== "required").sort()).toEqual(
          [...contract.declared].sort(),
        );
      });
    });
  });
}

/**
 * The contract's part on volumes, for a pool of another kind than the one that the whole contract was run over. Nothing is
 * recorded: the table of capabilities tells of guest types.
 */
export function describeVolumeContract(contract: DriverContract, formats: readonly VolumeFormat[]): void {
  describe(`driver contract, volumes: ${contract.name}`, () => {
    const scene = new Scene(contract);
    beforeAll(() => scene.open());
    afterEach(() => scene.cleanUp());
    afterAll(() => scene.close());
    const behaviour: Behaviour = (_ability, name, test) => {
      it(name, test);
    };
    volumeBehaviours(scene, behaviour, formats);
  });
}

/** Abilities that are optional members of a connection; the others are ways of the required ones. */
const MEMBERS = {
  pause: "pause",
  reboot: "rebootDomain",
  reset: "resetDomain",
  save: "saveDomain",
  volumes: "volumes",
  diskHotplug: "diskHotplug",
  volumeDownload: "downloadVolume",
  networks: "networks",
  nicHotplug: "nics",
  guestAgent: "guestAgent",
  consoleLog: "consoleLog",
  serialConsole: "openSerialConsole",
  vnc: "openVnc",
  screenshot: "takeScreenshot",
} as const;
