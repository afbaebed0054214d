import { isUuid } from "../../lib/ids.ts";
import type { Call, HostFacts } from "../hypervisor.ts";
import { offeredGuestTypes } from "./guest-types.ts";
import type { HostLink } from "./host-link.ts";
import { parseDefaultBridge } from "./parse-bridges.ts";
import { type ConsoleDaemon, parseConsoleDaemon } from "./parse-console-daemon.ts";
import { parseInfo, type XenInfo } from "./parse-info.ts";
import { Sections } from "./parse-sections.ts";

/** What was found on a host, with what the driver itself needs of it. */
export interface HostFindings {
  readonly facts: HostFacts;
  /** Null where guests' consoles are not logged. */
  readonly consoleLogs: ConsoleDaemon | null;
  readonly defaultBridge: string;
}

export async function probe(link: HostLink, call: Call): Promise<HostFindings> {
  const told = new Sections(await link.tell("host", [], call));
  const info = parseInfo(told.text("info"));
  const daemon = parseConsoleDaemon(told.text("console"));
  const consoleLogs = daemon.logsGuests ? daemon : null;
  return {
    facts: factsOf(info, told, consoleLogs !== null),
    consoleLogs,
    defaultBridge: parseDefaultBridge(told.text("xl.conf")),
  };
}

function factsOf(info: XenInfo, told: Sections, logsConsoles: boolean): HostFacts {
  const { sockets, coresPerSocket, threadsPerCore, numaCells } = info;
  return {
    hostUuid: hostUuid(told),
    hostname: info.hostname,
    hypervisor: "xen",
    hypervisorVersion: info.version,
    // xl is a part of Xen, of the same version.
    toolstackVersion: info.version,
    architecture: info.architecture,
    cpu: {
      model: told.lines("cpu")[0]?.replace(/^model name\s*:\s*/, "") ?? "unknown",
      count: info.cpuCount,
      sockets,
      coresPerSocket,
      threadsPerCore,
    },
    memoryMib: info.memoryMib,
    numaCells,
    accelerator: null,
    guestTypes: offeredGuestTypes({ info, files: told.lines("tools"), logsConsoles }),
  };
}

/** The machine's own UUID, and where its firmware has none, what systemd made up for it once. */
function hostUuid(told: Sections): string | null {
  const firmware = told.lines("uuid")[0]?.toLowerCase() ?? "";
  if (isUuid(firmware) && !/^(0+|f+)$/.test(firmware.replaceAll("-", ""))) return firmware;
  const machine = (told.lines("machine")[0] ?? "").replace(
    /^([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})$/,
    "$1-$2-$3-$4-$5",
  );
  return isUuid(machine) ? machine : null;
}
