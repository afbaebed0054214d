import { idleKernel } from "../rigs/xen/idle-kernel.ts";
import { startXenHost, type XenRigHost } from "../rigs/xen/xen-host.ts";
import type { Rig } from "./campaign.ts";
import type { World } from "./complaints.ts";

/** A real Xen host in an emulated machine. Its guests are pv: those start fastest there. */
export async function openXenRig(): Promise<Rig> {
  const host = await startXenHost();
  const { uri, privateKey, knownHosts } = host;
  return {
    hosts: [
      {
        name: "host-0",
        registration: { uri, credentials: { ssh: { privateKey, knownHosts } }, overcommit: { cpu: 64 } },
      },
    ],
    newHostUri: () => {
      throw new Error("no hosts are registered here");
    },
    // Its kernel sleeps at once: it hears nothing anyway.
    deafen: () => Promise.resolve(),
    guest: { kernel: idleKernel, spec: { guestType: "pv" }, takesDisks: false },
    // Its guests have no NICs: there is nothing to prepare.
    makesNetworks: false,
    world: () => readXenWorld(host),
    close: () => host.stop(),
  };
}

/**
 * What stands on the host, one thing a line: `domain UUID STATE` as xl lists it, `defined UUID NAME off|saved` as Drover
 * left it, `volume NAME`, `log NAME` of each domain whose console was logged, `left FILE` of what no change under way
 * explains.
 */
const LOOK = `
xl list -v | awk 'NR > 1 && $2 > 0 { for (i = 5; i < NF; i++) if ($i ~ /^[0-9a-f-]+$/ && length($i) == 36) print "domain", $i, $(i - 2) }'
cd /var/lib/drover-xen || exit 1
for home in */domains/*/; do
  [ -d "$home" ] || continue
  name=$(sed -n 's/^{"version":1,"spec":{"uuid":"[^"]*","name":"\\([^"]*\\)".*/\\1/p' "$home/domain.json")
  echo "defined $(basename "$home") $name $([ -e "$home/saved" ] && echo saved || echo off)"
done
for file in pools/default/*; do [ ! -e "$file" ] || echo "volume $(basename "$file")"; done
for file in /var/log/xen/console/guest-*.log*; do [ ! -e "$file" ] || echo "log $(basename "$file" | sed 's/^guest-//; s/[.]log.*//')"; done
for file in */locks/*; do [ ! -e "$file" ] || echo "left $file"; done
`;

/** What a real Xen host holds, read behind Drover's back. */
async function readXenWorld(host: XenRigHost): Promise<World> {
  const { exitCode, stdout, stderr } = await host.run(["sh", "-c", LOOK]);
  if (exitCode !== 0) throw new Error(`dom0 cannot be looked at: ${stderr}`);
  const facts = stdout.split("\n").map((line) => line.split(" "));
  const of = (kind: string): string[][] =>
    facts.filter(([first]) => first === kind).map(([, ...rest]) => rest);
  const uuidsByName = new Map(of("defined").map(([uuid = "", name = ""]) => [name, uuid]));
  const domains = new Map(of("defined").map(([uuid = "", , power = ""]) => [uuid, power]));
  for (const [uuid = "", state = ""] of of("domain")) domains.set(uuid, powerOf(state));
  return {
    domains,
    volumes: [...of("volume"), ...of("left")].map(([name = ""]) => name),
    consoleLogs: [...new Set(of("log").map(([name = ""]) => uuidsByName.get(name) ?? name))],
  };
}

/** xl's letters: running or blocked, paused, shut down, crashed. */
function powerOf(state: string): string {
  if (state.includes("c")) return "crashed";
  if (state.includes("s")) return "shut down";
  return state.includes("p") ? "paused" : "running";
}
