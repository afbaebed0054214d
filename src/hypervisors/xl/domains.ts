import { type Call, type DomainRef, type DomainSpec, HypervisorError } from "../hypervisor.ts";
import { consoleLogName } from "./console-log.ts";
import { writeDefinition } from "./domain-definition.ts";
import { type DomainReader, see } from "./domain-look.ts";
import { commandFailed, isNotFound } from "./errors.ts";
import type { HostContext } from "./host-context.ts";
import { isHostDomain } from "./host-domain.ts";
import type { DomainChangeOptions } from "./host-link.ts";
import { resolveParts } from "./spec-parts.ts";
import { type ResolvedParts, xlConfig } from "./xl-config.ts";

/** For how long a program of a change may run on the host. Memory is read and written at the speed of its disk. */
const LIMIT_SECONDS = 300;
const MEMORY_LIMIT_SECONDS = 1800;

type DomainChange = "start" | "shutdown" | "off" | "reboot" | "reset" | "pause" | "resume" | "save";

const DOING: Readonly<Record<DomainChange, string>> = {
  start: "starting",
  shutdown: "asking to shut down",
  off: "switching off",
  reboot: "asking to reboot",
  reset: "resetting",
  pause: "pausing",
  resume: "resuming",
  save: "saving",
};

/** Defines a domain, or replaces our own definition of it. */
export async function define(host: HostContext, asked: DomainSpec, call: Call): Promise<void> {
  // Nobody guards what guests send here.
  const nics = asked.nics.map(({ name, network, macAddress }) => ({ name, network, macAddress }));
  const spec = { ...asked, nics };
  const parts = resolveParts(spec, host);
  const input = `${writeDefinition({ spec, parts })}\n${hostConfig(spec, parts, host.consoleLogs)}`;
  await change(host, "define", `defining domain '${spec.name}'`, spec.uuid, call, {
    limitSeconds: LIMIT_SECONDS,
    args: [spec.name],
    input,
  });
}

/** The configuration with what the host program itself must know; see domain-program.ts. Pure. */
function hostConfig(spec: DomainSpec, parts: ResolvedParts, consoleLogs: string | null): string {
  const serialLog = consoleLogs === null ? null : `${consoleLogs}/${consoleLogName(spec.name)}`;
  const config = xlConfig(spec, parts, serialLog);
  const files = [parts.kernel, parts.initrd, ...parts.disks.map(({ path }) => path)];
  const notes = [
    `name ${spec.name}`,
    `type ${spec.guestType}`,
    ...files.filter((path) => path !== null).map((path) => `file ${path}`),
    ...new Set(parts.nics.map(({ bridge }) => `bridge ${bridge}`)),
  ];
  return `${notes.map((note) => `# ${note}\n`).join("")}${config}# end\n`;
}

/** Changes a domain that is defined; what it does is in domain-program.ts. */
export async function changePower(
  host: HostContext,
  kind: DomainChange,
  uuid: string,
  call: Call,
): Promise<void> {
  const limitSeconds = kind === "save" || kind === "start" ? MEMORY_LIMIT_SECONDS : LIMIT_SECONDS;
  await change(host, kind, `${DOING[kind]} domain ${uuid}`, uuid, call, { limitSeconds });
}

export async function remove(host: HostContext, uuid: string, call: Call): Promise<void> {
  try {
    await change(host, "remove", `removing domain ${uuid}`, uuid, call, { limitSeconds: LIMIT_SECONDS });
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
}

async function change(
  host: HostContext,
  kind: string,
  action: string,
  uuid: string,
  call: Call,
  options: DomainChangeOptions,
): Promise<void> {
  refuseHostItself(uuid);
  try {
    const result = await host.link.changeDomain(kind, uuid, call, options);
    if (result.exitCode !== 0) throw commandFailed(action, result);
  } finally {
    // One that failed may have changed something all the same.
    host.changed(uuid, kind);
  }
}

function refuseHostItself(uuid: string): void {
  if (!isHostDomain({ uuid })) return;
  throw new HypervisorError("foreign", "this is the host's own domain, which is never changed");
}

/** Rejects with `foreign` where a domain of this UUID or name is on the host and not ours. */
export async function refuseForeign(reader: DomainReader, domain: DomainRef, call: Call): Promise<void> {
  const { listed, definitions } = await see(reader, "*", call);
  const ours = new Set(
    definitions
      .filter(({ installationId }) => installationId === reader.installationId)
      .map(({ uuid }) => uuid),
  );
  const all = [...listed, ...definitions.map(({ uuid, spec }) => ({ uuid, name: spec?.name ?? null }))];
  const foreign = all.find(
    ({ uuid, name }) => (uuid === domain.uuid || name === domain.name) && !ours.has(uuid),
  );
  if (foreign === undefined) return;
  throw new HypervisorError(
    "foreign",
    `domain '${domain.name}' (${foreign.uuid}) is not ours, so it is not changed`,
  );
}
