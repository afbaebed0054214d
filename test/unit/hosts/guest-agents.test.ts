import { afterEach, describe, expect, it } from "vitest";
import type { Tx } from "../../../src/db/transaction.ts";
import { GuestAgents } from "../../../src/hosts/guest-agents.ts";
import type { AgentWord } from "../../../src/hosts/observation-sink.ts";
import {
  type AgentReport,
  HypervisorError,
  type ObservedDomain,
} from "../../../src/hypervisors/hypervisor.ts";
import { type HostId, type InstallationId, newId } from "../../../src/lib/ids.ts";
import { domainOf } from "../../fixtures/fake-host.ts";
import { silentLog } from "../../fixtures/log.ts";

const ours = newId<InstallationId>();
const REPORT: AgentReport = { hostName: "web", osName: null, kernelRelease: null, addresses: [] };
const ends: AbortController[] = [];
afterEach(() => {
  for (const end of ends.splice(0)) end.abort();
});

function guest(uuid: string, overrides: Partial<ObservedDomain> = {}): ObservedDomain {
  return domainOf(uuid, { installationId: ours, agent: "connected", ...overrides });
}

/** Guests whose agents answer as `answer` says; each question is noted. */
function play(answer: (uuid: string) => Promise<AgentReport>, paceMs = 3_600_000) {
  const end = new AbortController();
  ends.push(end);
  const asked: string[] = [];
  const words: AgentWord[] = [];
  const agents = new GuestAgents({
    hostId: newId<HostId>(),
    ability: {
      askAgent: (uuid) => {
        asked.push(uuid);
        return answer(uuid);
      },
    },
    installationId: ours,
    sink: {
      agents: async (_tx, _hostId, said) => {
        words.push(...said);
      },
    },
    logger: silentLog,
    paceMs,
    write: (work) => work({} as Tx),
    signal: end.signal,
  });
  return { agents, asked, words, end };
}

function eventually<T>(look: () => T) {
  return expect.poll(look, { timeout: 30_000, interval: 5 });
}

const answers = (): Promise<AgentReport> => Promise.resolve(REPORT);
const fails = (reason: HypervisorError["reason"]) => () =>
  Promise.reject<AgentReport>(new HypervisorError(reason, `it is ${reason}`));

describe("asking the agents of a host", () => {
  it("is done for guests of ours that run and have one that is connected, once within its pace", async () => {
    const { agents, asked, words } = play(answers);
    agents.see(
      [
        guest("a"),
        guest("b", { agent: "disconnected" }),
        guest("c", { agent: undefined }),
        guest("d", { power: "paused" }),
        guest("e", { installationId: newId<InstallationId>() }),
        guest("f", { installationId: null }),
      ],
      { all: true },
    );
    await eventually(() => words.length).toBe(1);
    agents.see([guest("a")], { all: false });
    agents.see([guest("a")], { all: true });
    expect(asked).toEqual(["a"]);
    expect(words).toMatchObject([{ uuid: "a", report: REPORT, error: null }]);
  });

  it("is done anew at a steady pace, and at once where an agent has come back", async () => {
    const steady = play(answers, 10);
    steady.agents.see([guest("a")], { all: true });
    await eventually(() => steady.asked.length).toBeGreaterThan(3);
    const slow = play(answers);
    slow.agents.see([guest("a")], { all: true });
    slow.agents.see([guest("a", { agent: "disconnected" })], { all: false });
    slow.agents.see([guest("a")], { all: false });
    await eventually(() => slow.asked.length).toBe(2);
  });

  it("ends with a guest that is gone", async () => {
    const { agents, asked, words } = play(answers, 10);
    agents.see([guest("a"), guest("b")], { all: true });
    await eventually(() => words.length).toBeGreaterThan(1);
    agents.see([guest("b")], { all: true });
    const before = asked.filter((uuid) => uuid === "a").length;
    const more = asked.length + 5;
    await eventually(() => asked.length).toBeGreaterThan(more);
    expect(asked.filter((uuid) => uuid === "a")).toHaveLength(before);
  });

  it("is done for few at once: agents that hang hold up the others' agents, and nothing else", async () => {
    const held = Promise.withResolvers<AgentReport>();
    const { agents, asked, words } = play((uuid) => (uuid === "z" ? answers() : held.promise));
    agents.see(
      ["a", "b", "c", "z"].map((uuid) => guest(uuid)),
      { all: true },
    );
    expect(asked).toEqual(["a", "b", "c"]);
    held.reject(new HypervisorError("timeout", "it did not answer"));
    await eventually(() => words.length).toBe(4);
    expect(asked).toEqual(["a", "b", "c", "z"]);
    expect(words).toContainEqual(
      expect.objectContaining({ uuid: "a", report: null, error: "it did not answer" }),
    );
  });

  it.each(["unreachable", "invalid-state", "not-found", "aborted"] as const)(
    "says nothing of the agent where the question failed by itself: %s",
    async (reason) => {
      const { agents, asked, words } = play(fails(reason), 10);
      agents.see([guest("a")], { all: true });
      await eventually(() => asked.length).toBeGreaterThan(1);
      expect(words).toEqual([]);
    },
  );

  it.each([
    { ...REPORT, hostName: "a\u0000" },
    { ...REPORT, osName: "x".repeat(256) },
    { ...REPORT, addresses: [{ macAddress: "52:54:00:00:00:01", address: "'; --" }] },
  ])("believes no report that cannot be right", async (report) => {
    const { agents, words } = play(() => Promise.resolve(report));
    agents.see([guest("a")], { all: true });
    await eventually(() => words.length).toBe(1);
    expect(words[0]?.error).toContain("an agent's report that cannot be right");
  });

  it("is over with the connection, whoever still answers", async () => {
    const held = Promise.withResolvers<AgentReport>();
    const { agents, asked, words, end } = play(() => held.promise);
    agents.see([guest("a")], { all: true });
    end.abort();
    held.resolve(REPORT);
    await held.promise;
    agents.see([guest("b")], { all: true });
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect([asked, words]).toEqual([["a"], []]);
  });
});
