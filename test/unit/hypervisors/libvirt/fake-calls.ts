import type { Call } from "../../../../src/hypervisors/hypervisor.ts";
import { toHypervisorError } from "../../../../src/hypervisors/libvirt/errors.ts";
import type { HostCalls } from "../../../../src/hypervisors/libvirt/lanes.ts";
import { LibvirtError, type Procedure } from "../../../../src/libvirt-rpc/index.ts";

/** What a fake host answers to each procedure, by its name: a result, or an error thrown. */
export type Answers = Readonly<Record<string, (args: never) => unknown>>;

export const call: Call = {
  signal: new AbortController().signal,
  timeoutMs: 10_000,
  beforeSend: () => undefined,
};

/** A host that answers from a table, and keeps the names of the procedures it was asked for. */
export function fakeCalls(answers: Answers): HostCalls & { readonly asked: string[] } {
  const asked: string[] = [];
  const answer = <Args, Result>(procedure: Procedure<Args, Result>, args: Args): Promise<Result> => {
    asked.push(procedure.name);
    const find = answers[procedure.name];
    if (find === undefined) throw new Error(`nobody said what ${procedure.name} answers`);
    try {
      return Promise.resolve(find(args as never) as Result);
    } catch (error) {
      return Promise.reject(toHypervisorError(error));
    }
  };
  return {
    asked,
    read: answer,
    change: answer,
    changeSlowly: answer,
    askGuest: answer,
    stream: () => Promise.reject(new Error("this host has no streams")),
  };
}

export function refuse(code: number, message: string, domain = 10): never {
  const rest = { level: 2, str1: null, str2: null, str3: null, int1: 0, int2: 0 };
  throw new LibvirtError("fake", { code, domain, message, ...rest });
}
