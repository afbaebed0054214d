import { describe, expect, it } from "vitest";
import { guestAgentAbility } from "../../../../src/hypervisors/libvirt/guest-agent.ts";
import {
  parseHostName,
  parseInterfaces,
  parseOsInfo,
} from "../../../../src/hypervisors/libvirt/parse-agent.ts";
import { errorCode } from "../../../../src/libvirt-rpc/index.ts";
import { type Answers, call, fakeCalls, refuse } from "./fake-calls.ts";

const uuid = "0192aaaa-0000-7000-8000-00000000abcd";
const answerOf = (value: unknown): string => JSON.stringify({ return: value });

/** As qemu-ga 7.2 on Debian 12 answers, statistics left out. */
const TOLD: Readonly<Record<string, unknown>> = {
  "guest-get-host-name": { "host-name": "web-1" },
  "guest-get-osinfo": {
    name: "Debian GNU/Linux",
    "kernel-release": "6.1.0-37-amd64",
    version: "12 (bookworm)",
    "pretty-name": "Debian GNU/Linux 12 (bookworm)",
    "version-id": "12",
    id: "debian",
  },
  "guest-network-get-interfaces": [
    {
      name: "lo",
      "ip-addresses": [{ "ip-address": "127.0.0.1", "ip-address-type": "ipv4", prefix: 8 }],
      "hardware-address": "00:00:00:00:00:00",
    },
    {
      name: "enp1s0",
      "ip-addresses": [
        { "ip-address": "10.88.0.2", "ip-address-type": "ipv4", prefix: 24 },
        { "ip-address": "fe80::5054:ff:fe00:1", "ip-address-type": "ipv6", prefix: 64 },
        { "ip-address": "2001:db8::5054:ff:fe00:1", "ip-address-type": "ipv6", prefix: 64 },
      ],
      "hardware-address": "52:54:00:00:00:01",
    },
    { name: "enp2s0", "hardware-address": "52:54:00:00:00:02" },
  ],
};
const MAC = "52:54:00:00:00:01";

describe("what an agent answers", () => {
  it("is host name, system, and addresses that can be reached", () => {
    expect(parseHostName(answerOf(TOLD["guest-get-host-name"]))).toEqual({ hostName: "web-1" });
    expect(parseOsInfo(answerOf(TOLD["guest-get-osinfo"]))).toEqual({
      osName: "Debian GNU/Linux 12 (bookworm)",
      kernelRelease: "6.1.0-37-amd64",
    });
    expect(parseInterfaces(answerOf(TOLD["guest-network-get-interfaces"]))).toEqual({
      addresses: [
        { macAddress: MAC, address: "10.88.0.2" },
        { macAddress: MAC, address: "2001:db8::5054:ff:fe00:1" },
      ],
    });
  });

  it("is made of what is there", () => {
    expect(parseOsInfo(answerOf({ name: "Alpine", version: "3.20" }))).toEqual({
      osName: "Alpine 3.20",
      kernelRelease: null,
    });
    expect(parseOsInfo(answerOf({}))).toEqual({ osName: null, kernelRelease: null });
    expect(parseHostName(answerOf({ "host-name": "" }))).toEqual({ hostName: null });
    expect(parseInterfaces(answerOf([]))).toEqual({ addresses: [] });
  });

  it("has one spelling of an address, and an address once", () => {
    const nic = (...addresses: string[]) => ({
      "hardware-address": MAC.toUpperCase(),
      "ip-addresses": addresses.map((address) => ({ "ip-address": address })),
    });
    expect(
      parseInterfaces(
        answerOf([nic("2001:DB8:0:0::1", "10.0.0.1"), nic("2001:db8::1", "febf::1", "fec0::1")]),
      ),
    ).toEqual({
      addresses: ["2001:db8::1", "10.0.0.1", "fec0::1"].map((address) => ({ macAddress: MAC, address })),
    });
    const odd = nic("10.0.0.256", "fe80::1%eth0", "::1", "::", "0.0.0.0", "127.1.2.3", "'; --", "");
    expect(parseInterfaces(answerOf([odd, { "hardware-address": "ib0", "ip-addresses": [] }]))).toEqual({
      addresses: [],
    });
  });

  it("is no more than a machine has", () => {
    const addresses = Array.from({ length: 3000 }, (_, index) => ({
      "ip-address": `10.1.${index >> 8}.${index & 255}`,
    }));
    const answer = answerOf([{ "hardware-address": MAC, "ip-addresses": addresses }]);
    expect(parseInterfaces(answer).addresses).toHaveLength(256);
  });

  it.each<[string, string]>([
    ["no JSON", "{"],
    ["no answer", "{}"],
    ["another answer", answerOf("web-1")],
    ["a name that is none", answerOf({ "host-name": 7 })],
    ["lines", answerOf({ "host-name": "a\nb" })],
    ["control characters", answerOf({ "host-name": "\u001b[31mred" })],
    ["NUL, which Postgres does not take", answerOf({ "host-name": "a\u0000" })],
    ["half a character, which it does not take either", '{"return": {"host-name": "\\ud800"}}'],
    ["a name without end", answerOf({ "host-name": "a".repeat(256) })],
    ["an answer without end", answerOf({ "host-name": "a", more: "x".repeat(2 ** 20) })],
    ["depth without end", `{"return": ${"[".repeat(100_000)}${"]".repeat(100_000)}}`],
  ])("is refused where it is %s", (_what, answer) => {
    expect(() => parseHostName(answer)).toThrow(
      /agent in the guest answers to guest-get-host-name cannot be right/,
    );
  });
});

describe("asking an agent", () => {
  const executed = ({ cmd }: { cmd: string }): string => (JSON.parse(cmd) as { execute: string }).execute;
  const agentOf = (changed: Answers = {}) => {
    const calls = fakeCalls({
      domainLookupByUuid: () => ({ domain: { name: "web-1", uuid, id: 1 } }),
      qemuDomainAgentCommand: (args: { cmd: string }) => ({ result: answerOf(TOLD[executed(args)]) }),
      ...changed,
    });
    return { calls, ask: () => guestAgentAbility(calls).askAgent(uuid, call) };
  };

  it("brings all that it tells, each answer waited for by libvirt for seconds only", async () => {
    const timeouts: number[] = [];
    const { ask } = agentOf({
      qemuDomainAgentCommand: (args: { cmd: string; timeout: number }) => {
        timeouts.push(args.timeout);
        return { result: answerOf(TOLD[executed(args)]) };
      },
    });
    expect(await ask()).toMatchObject({
      hostName: "web-1",
      osName: "Debian GNU/Linux 12 (bookworm)",
      kernelRelease: "6.1.0-37-amd64",
      addresses: [{ address: "10.88.0.2" }, {}],
    });
    expect(timeouts).toEqual([5, 5, 5]);
  });

  it("goes without what the agent is not allowed to tell, or does not know", async () => {
    const { ask } = agentOf({
      qemuDomainAgentCommand: (args: { cmd: string }) =>
        executed(args) === "guest-get-osinfo"
          ? refuse(
              errorCode.internalError,
              "internal error: unable to execute QEMU agent command 'guest-get-osinfo': Command guest-get-osinfo has been disabled",
            )
          : { result: answerOf(TOLD[executed(args)]) },
    });
    expect(await ask()).toMatchObject({ hostName: "web-1", osName: null, kernelRelease: null });
  });

  it.each([
    [
      "says nothing",
      errorCode.agentUnresponsive,
      "Guest agent is not responding: Guest agent not available for now",
      "timeout",
      1,
    ],
    [
      "is not connected",
      errorCode.agentUnresponsive,
      "Guest agent is not responding: QEMU guest agent is not connected",
      "invalid-state",
      1,
    ],
    [
      "ends while it is asked",
      errorCode.agentUnresponsive,
      "Guest agent is not responding: Guest agent disappeared while executing command",
      "invalid-state",
      1,
    ],
    [
      "wrote nonsense",
      errorCode.agentUnresponsive,
      "Guest agent is not responding: QEMU guest agent is not available due to an error",
      "failed",
      1,
    ],
    [
      "has no channel",
      errorCode.argumentUnsupported,
      "argument unsupported: QEMU guest agent is not configured",
      "invalid-state",
      1,
    ],
    [
      "refuses everything",
      errorCode.internalError,
      "internal error: unable to execute QEMU agent command 'x': not found",
      "failed",
      3,
    ],
  ] as const)("that %s is told as what it is", async (_what, code, message, reason, asked) => {
    const { ask, calls } = agentOf({ qemuDomainAgentCommand: () => refuse(code, message) });
    await expect(ask()).rejects.toMatchObject({ name: "HypervisorError", reason });
    expect(calls.asked.filter((name) => name === "qemuDomainAgentCommand")).toHaveLength(asked);
  });

  it("of a domain that is not there says so", async () => {
    const { ask } = agentOf({ domainLookupByUuid: () => refuse(errorCode.noDomain, "Domain not found") });
    await expect(ask()).rejects.toMatchObject({ reason: "not-found" });
  });
});
