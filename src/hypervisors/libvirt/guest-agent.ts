import { type Domain, qemuDomainAgentCommand } from "../../libvirt-rpc/index.ts";
import { type AgentReport, type Call, type GuestAgentAbility, HypervisorError } from "../hypervisor.ts";
import { findDomain } from "./domain-lookup.ts";
import { isUnsupported } from "./errors.ts";
import type { HostCalls } from "./lanes.ts";
import { type AgentCommand, parseHostName, parseInterfaces, parseOsInfo } from "./parse-agent.ts";

/**
 * How long libvirtd itself waits for one answer. Its own calls for the same (virDomainGetGuestInfo and others) wait for
 * ever for an agent that hangs, each with one of the daemon's few workers: so commands are passed as they are.
 */
const ANSWER_SECONDS = 5;
/** For all answers together: an agent may be slow every time. */
const ALL_ANSWERS_MS = 30_000;
const NOTHING_TOLD = { hostName: null, osName: null, kernelRelease: null, addresses: [] } as const;

const QUESTIONS: readonly {
  readonly command: AgentCommand;
  readonly parse: (answer: string) => Partial<AgentReport>;
}[] = [
  { command: "guest-network-get-interfaces", parse: parseInterfaces },
  { command: "guest-get-host-name", parse: parseHostName },
  { command: "guest-get-osinfo", parse: parseOsInfo },
];

/** The agent of QEMU in guests, through libvirt's channel to it. */
export function guestAgentAbility(calls: HostCalls): GuestAgentAbility {
  return {
    async askAgent(uuid, call) {
      const limit = AbortSignal.timeout(ALL_ANSWERS_MS);
      const signal = AbortSignal.any([call.signal, limit]);
      try {
        return await ask(calls, uuid, { ...call, signal });
      } catch (error) {
        throw limit.aborted && !call.signal.aborted ? tooSlow(error) : error;
      }
    },
  };
}

async function ask(calls: HostCalls, uuid: string, call: Call): Promise<AgentReport> {
  const domain = await findDomain(calls, uuid, call);
  if (domain === null) throw new HypervisorError("not-found", `the host has no domain ${uuid}`);
  let report: AgentReport = NOTHING_TOLD;
  const refusals: HypervisorError[] = [];
  for (const { command, parse } of QUESTIONS) {
    const answer = await answerTo(calls, domain, command, call);
    if (answer instanceof HypervisorError) refusals.push(answer);
    else report = { ...report, ...parse(answer) };
  }
  const [refusal] = refusals;
  if (refusal !== undefined && refusals.length === QUESTIONS.length) throw refusal;
  return report;
}

/** An agent need not know every command, and its administrator can forbid some: that refusal is returned. */
async function answerTo(
  calls: HostCalls,
  domain: Domain,
  command: AgentCommand,
  call: Call,
): Promise<string | HypervisorError> {
  const args = { domain, cmd: JSON.stringify({ execute: command }), timeout: ANSWER_SECONDS, flags: 0 };
  try {
    return (await calls.askGuest(qemuDomainAgentCommand, args, call)).result ?? "";
  } catch (error) {
    if (isUnsupported(error)) throw new HypervisorError("invalid-state", NO_CHANNEL, { cause: error });
    if (error instanceof HypervisorError && REFUSED.test(error.message)) return error;
    throw error;
  }
}

/** As libvirt tells of an agent that answers with an error. */
const REFUSED = /unable to execute QEMU agent command/i;
const NO_CHANNEL = "the domain has no channel to an agent in its guest";

function tooSlow(cause: unknown): HypervisorError {
  const message = `the agent in the guest did not answer within ${ALL_ANSWERS_MS / 1000} seconds`;
  return new HypervisorError("timeout", message, { cause });
}
