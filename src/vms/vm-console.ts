import type { HostReader } from "../hosts/host-reader.ts";
import { DroverError } from "../lib/errors.ts";
import type { VmRecord } from "./vm-record.ts";

/** The last bytes of a VM's serial console. Throws DroverError `capability_unsupported`, `host_unreachable`. */
export type ConsoleLogReader = (vm: VmRecord, maxBytes: number, signal: AbortSignal) => Promise<Uint8Array>;

export function createConsoleLogReader(reader: HostReader): ConsoleLogReader {
  return async (vm, maxBytes, signal) => {
    const { hostId, domainName, pool } = vm;
    if (hostId === null || domainName === null || pool === null) return new Uint8Array();
    return await reader(hostId, signal, async (host, call) => {
      if (host.consoleLog === undefined) {
        throw new DroverError("capability_unsupported", `Host "${vm.hostName ?? ""}" keeps no console log.`);
      }
      return await host.consoleLog.readConsoleLog({ uuid: vm.id, name: domainName, pool }, maxBytes, call);
    });
  };
}
