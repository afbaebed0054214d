import {
  type Call,
  HypervisorError,
  type ObservedVolume,
  type VolumeRef,
  type VolumeSpec,
} from "../hypervisor.ts";
import { commandFailed } from "./errors.ts";
import type { ChangeOptions, ProgramArguments, ProgramResult, XlHost } from "./host.ts";
import { isGroupName, logicalVolumePath } from "./lvm-names.ts";
import {
  CUT_OFF,
  copyLogicalVolume,
  createLogicalVolume,
  deleteLogicalVolume,
  digestLogicalVolume,
  FOREIGN_VOLUME,
  growLogicalVolume,
  listLogicalVolumes,
  NO_GROUP,
  NO_LOGICAL_VOLUME,
  observeLogicalVolume,
  uploadLogicalVolume,
  uploadLogicalVolumePart,
} from "./lvm-programs.ts";
import { type LogicalVolume, parseLogicalVolumes } from "./parse-logical-volumes.ts";
import { CONTENT_LIMIT_SECONDS, digestIn, receive, type XlVolumes } from "./volume-content.ts";

const CHANGE_LIMIT_SECONDS = 120;

/** Volumes as logical volumes of LVM, in any volume group of the host; the pool's name is the group's. */
export function lvmVolumes(host: XlHost): XlVolumes {
  return new LvmVolumes(host);
}

class LvmVolumes implements XlVolumes {
  readonly #host: XlHost;

  constructor(host: XlHost) {
    this.#host = host;
  }

  async observeVolume(ref: VolumeRef, call: Call): Promise<ObservedVolume | null> {
    const group = checkedGroup(ref.pool);
    const result = await this.#host.read(observeLogicalVolume(group, ref.name), call);
    refuseFailure(`observing volume '${ref.name}'`, group, result);
    const found = parseLogicalVolumes(result.stdout).find(({ name }) => name === ref.name);
    return found === undefined ? null : toObserved(group, found);
  }

  async createVolume(spec: VolumeSpec, call: Call): Promise<ObservedVolume> {
    if (spec.format !== "raw") throw onlyRaw(spec);
    const found = await this.observeVolume(spec, call);
    if (found !== null) return found;
    const program = createLogicalVolume(spec.pool, spec.name, spec.capacityBytes);
    await this.#change("creating", spec, program, patient(call), { limitSeconds: CONTENT_LIMIT_SECONDS });
    const created = await this.observeVolume(spec, call);
    if (created === null) throw noSuchVolume(spec);
    return created;
  }

  /** In place: what an upload that was broken off has written stays until the next one. */
  async uploadVolume(
    ref: VolumeRef,
    source: AsyncIterable<Uint8Array>,
    sizeBytes: number,
    call: Call,
  ): Promise<void> {
    await this.#receive(
      ref,
      uploadLogicalVolume(ref.pool, ref.name, sizeBytes),
      source,
      [0, sizeBytes],
      call,
    );
  }

  async uploadPart(
    ref: VolumeRef,
    source: AsyncIterable<Uint8Array>,
    part: { readonly offsetBytes: number; readonly sizeBytes: number },
    call: Call,
  ): Promise<void> {
    const program = uploadLogicalVolumePart(ref.pool, ref.name, part);
    await this.#receive(ref, program, source, [part.offsetBytes, part.sizeBytes], call);
  }

  async #receive(
    ref: VolumeRef,
    program: ProgramArguments,
    source: AsyncIterable<Uint8Array>,
    [offsetBytes, sizeBytes]: readonly [number, number],
    call: Call,
  ): Promise<void> {
    const { capacityBytes } = await this.#require(ref, call);
    if (offsetBytes + sizeBytes > capacityBytes) {
      throw new HypervisorError(
        "invalid-spec",
        `volume '${ref.name}' has ${capacityBytes} bytes: ${offsetBytes + sizeBytes} do not fit`,
      );
    }
    await receive(ref.name, source, sizeBytes, call, (options) =>
      this.#change("uploading", ref, program, call, options),
    );
  }

  async copyVolume(spec: VolumeSpec, source: VolumeRef, call: Call): Promise<ObservedVolume> {
    if (spec.format !== "raw") throw onlyRaw(spec);
    const from = await this.#require({ pool: spec.pool, name: source.name }, call);
    const bytes = Math.max(spec.capacityBytes, from.capacityBytes);
    const program = copyLogicalVolume(spec.pool, spec.name, source.name, bytes);
    await this.#change("copying to", spec, program, call, { limitSeconds: CONTENT_LIMIT_SECONDS });
    return await this.#require(spec, call);
  }

  async digestVolume(ref: VolumeRef, sizeBytes: number, call: Call): Promise<string> {
    const program = digestLogicalVolume(checkedGroup(ref.pool), ref.name, sizeBytes);
    const options = { limitSeconds: CONTENT_LIMIT_SECONDS };
    return digestIn(await this.#change("reading", ref, program, call, options));
  }

  async growVolume(ref: VolumeRef, capacityBytes: number, call: Call): Promise<void> {
    const facts = await this.#require(ref, call);
    if (facts.capacityBytes >= capacityBytes) return;
    const program = growLogicalVolume(ref.pool, ref.name, capacityBytes);
    await this.#change("growing", ref, program, patient(call), { limitSeconds: CONTENT_LIMIT_SECONDS });
  }

  async deleteVolume(ref: VolumeRef, call: Call): Promise<void> {
    await this.#change("deleting", ref, deleteLogicalVolume(checkedGroup(ref.pool), ref.name), call);
  }

  async listVolumes(pool: string, prefix: string, call: Call): Promise<readonly ObservedVolume[]> {
    const group = checkedGroup(pool);
    const result = await this.#host.read(listLogicalVolumes(group), call);
    refuseFailure(`listing the volumes of volume group '${group}'`, group, result);
    return parseLogicalVolumes(result.stdout)
      .filter(({ name }) => name.startsWith(prefix))
      .map((found) => toObserved(group, found));
  }

  async #require(ref: VolumeRef, call: Call): Promise<ObservedVolume> {
    const found = await this.observeVolume(ref, call);
    if (found === null) throw noSuchVolume(ref);
    return found;
  }

  /** Changes of one volume wait for each other. */
  async #change(
    verb: string,
    ref: VolumeRef,
    program: ProgramArguments,
    call: Call,
    options: Omit<ChangeOptions, "lock"> = { limitSeconds: CHANGE_LIMIT_SECONDS },
  ): Promise<string> {
    const lock = logicalVolumePath(ref.pool, ref.name);
    const result = await this.#host.change(program, call, { ...options, lock });
    if (result.exitCode === NO_LOGICAL_VOLUME) throw noSuchVolume(ref);
    refuseFailure(`${verb} volume '${ref.name}'`, ref.pool, result);
    return result.stdout;
  }
}

function onlyRaw({ pool, format }: VolumeSpec): HypervisorError {
  return new HypervisorError(
    "invalid-spec",
    `pool '${pool}' is a volume group, whose volumes are raw: ${format} is for pools of files`,
  );
}

/**
 * The host writes zeros for as long as its disks need. The caller's signal ends the wait, and so does the connection, which
 * asks a host that is silent whether it is there.
 */
function patient(call: Call): Call {
  return { ...call, timeoutMs: CONTENT_LIMIT_SECONDS * 1000 };
}

function checkedGroup(pool: string): string {
  if (isGroupName(pool)) return pool;
  throw noSuchGroup(pool);
}

function refuseFailure(action: string, group: string, result: ProgramResult): void {
  switch (result.exitCode) {
    case 0:
      return;
    case NO_GROUP:
      throw noSuchGroup(group);
    case FOREIGN_VOLUME:
      throw new HypervisorError(
        "foreign",
        `${action} failed: volume group '${group}' has a logical volume of this name that Drover did not make`,
      );
    case CUT_OFF:
      throw new HypervisorError("failed", `${action} failed: its content arrived cut off`);
    default:
      throw commandFailed(action, result);
  }
}

function noSuchGroup(pool: string): HypervisorError {
  return new HypervisorError(
    "not-found",
    `the host's URI names no pool '${pool.slice(0, 80)}', and the host has no volume group of this name`,
  );
}

function toObserved(group: string, facts: LogicalVolume): ObservedVolume {
  return { pool: group, path: logicalVolumePath(group, facts.name), ...facts };
}

function noSuchVolume({ pool, name }: VolumeRef): HypervisorError {
  return new HypervisorError("not-found", `volume group '${pool}' has no volume '${name}'`);
}
