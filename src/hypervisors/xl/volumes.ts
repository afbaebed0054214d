import {
  type Call,
  HypervisorError,
  type ObservedVolume,
  type VolumeRef,
  type VolumeSpec,
} from "../hypervisor.ts";
import { commandFailed } from "./errors.ts";
import type { ChangeOptions, ProgramArguments, ProgramResult, XlHost } from "./host.ts";
import { parseVolumes, type VolumeFacts } from "./parse-volumes.ts";
import { poolNamed } from "./pools.ts";
import type { XlPool } from "./uri.ts";
import { CONTENT_LIMIT_SECONDS, digestIn, receive, type XlVolumes } from "./volume-content.ts";
import { volumePartPath, volumePath } from "./volume-names.ts";
import {
  copyProgram,
  createProgram,
  digestProgram,
  growProgram,
  listProgram,
  NO_DIRECTORY,
  NO_VOLUME,
  observeProgram,
  uploadPartProgram,
  uploadProgram,
  WRONG_LENGTH,
} from "./volume-programs.ts";

/** How long a change of a volume may run on the host. */
const CHANGE_LIMIT_SECONDS = 120;

/** Volumes as plain files in the directories that the host's URI names as pools. */
export function volumeAbility(host: XlHost, pools: readonly XlPool[]): XlVolumes {
  return new PoolVolumes(host, pools);
}

class PoolVolumes implements XlVolumes {
  readonly #host: XlHost;
  readonly #pools: readonly XlPool[];

  constructor(host: XlHost, pools: readonly XlPool[]) {
    this.#host = host;
    this.#pools = pools;
  }

  async observeVolume(ref: VolumeRef, call: Call): Promise<ObservedVolume | null> {
    const facts = await this.#find(ref, call);
    return facts === null ? null : toObserved(this.#poolOf(ref), facts);
  }

  async createVolume(spec: VolumeSpec, call: Call): Promise<ObservedVolume> {
    const found = await this.observeVolume(spec, call);
    if (found !== null) return found;
    const { name, format, capacityBytes } = spec;
    const program = createProgram(this.#poolOf(spec).path, name, format, capacityBytes);
    await this.#change("creating", spec, program, call);
    const created = await this.observeVolume(spec, call);
    if (created === null) throw noSuchVolume(spec);
    return created;
  }

  /** A qcow2 image is written as it is: its file takes the place of the empty one, header and all. */
  async uploadVolume(
    ref: VolumeRef,
    source: AsyncIterable<Uint8Array>,
    sizeBytes: number,
    call: Call,
  ): Promise<void> {
    const facts = await this.#require(ref, call);
    const program = uploadProgram(this.#poolOf(ref).path, ref.name, sizeBytes, leastBytes(facts));
    await receive(ref.name, source, sizeBytes, call, (options) =>
      this.#change("uploading", ref, program, call, options),
    );
  }

  async uploadPart(
    ref: VolumeRef,
    source: AsyncIterable<Uint8Array>,
    part: { readonly offsetBytes: number; readonly sizeBytes: number },
    call: Call,
  ): Promise<void> {
    const facts = await this.#require(ref, call);
    const program = uploadPartProgram(this.#poolOf(ref).path, ref.name, part, leastBytes(facts));
    await receive(ref.name, source, part.sizeBytes, call, (options) =>
      this.#change("uploading", ref, program, call, options),
    );
  }

  async copyVolume(spec: VolumeSpec, source: VolumeRef, call: Call): Promise<ObservedVolume> {
    const facts = await this.#require({ pool: spec.pool, name: source.name }, call);
    refuseOtherFiles(facts, "copied");
    const { name, format, capacityBytes } = spec;
    const grow = capacityBytes > facts.capacityBytes ? capacityBytes : 0;
    const program = copyProgram(this.#poolOf(spec).path, name, source.name, format, grow);
    await this.#change("copying to", spec, program, call, { limitSeconds: CONTENT_LIMIT_SECONDS });
    const made = await this.observeVolume(spec, call);
    if (made === null) throw noSuchVolume(spec);
    return made;
  }

  async digestVolume(ref: VolumeRef, sizeBytes: number, call: Call): Promise<string> {
    const program = digestProgram(this.#poolOf(ref).path, ref.name, sizeBytes);
    const options = { limitSeconds: CONTENT_LIMIT_SECONDS };
    return digestIn(await this.#change("reading", ref, program, call, options));
  }

  async growVolume(ref: VolumeRef, capacityBytes: number, call: Call): Promise<void> {
    const facts = await this.#require(ref, call);
    if (facts.capacityBytes >= capacityBytes) return;
    refuseOtherFiles(facts, "grown");
    const path = volumePath(this.#poolOf(ref).path, ref.name);
    await this.#change("growing", ref, growProgram(path, facts.format, capacityBytes), call);
  }

  async deleteVolume(ref: VolumeRef, call: Call): Promise<void> {
    const { path } = this.#poolOf(ref);
    const files = [volumePath(path, ref.name), volumePartPath(path, ref.name)];
    await this.#change("deleting", ref, ["rm", "-f", "--", ...files], call);
  }

  async listVolumes(poolName: string, prefix: string, call: Call): Promise<readonly ObservedVolume[]> {
    const pool = poolNamed(this.#pools, poolName);
    const result = await this.#host.read(listProgram(pool.path, prefix), call);
    refuseFailure(`listing the volumes of pool '${pool.name}'`, pool, result);
    return parseVolumes(result.stdout).map((facts) => toObserved(pool, facts));
  }

  async #find(ref: VolumeRef, call: Call): Promise<VolumeFacts | null> {
    const pool = this.#poolOf(ref);
    const result = await this.#host.read(observeProgram(pool.path, ref.name), call);
    refuseFailure(`observing volume '${ref.name}'`, pool, result);
    return parseVolumes(result.stdout)[0] ?? null;
  }

  async #require(ref: VolumeRef, call: Call): Promise<VolumeFacts> {
    const facts = await this.#find(ref, call);
    if (facts === null) throw noSuchVolume(ref);
    return facts;
  }

  /** Changes of one volume wait for each other. Resolves to what the program wrote. */
  async #change(
    verb: string,
    ref: VolumeRef,
    program: ProgramArguments,
    call: Call,
    options: Omit<ChangeOptions, "lock"> = { limitSeconds: CHANGE_LIMIT_SECONDS },
  ): Promise<string> {
    const pool = this.#poolOf(ref);
    const lock = volumePath(pool.path, ref.name);
    const result = await this.#host.change(program, call, { ...options, lock });
    if (result.exitCode === NO_VOLUME) throw noSuchVolume(ref);
    refuseFailure(`${verb} volume '${ref.name}'`, pool, result);
    return result.stdout;
  }

  #poolOf(ref: VolumeRef): XlPool {
    return poolNamed(this.#pools, ref.pool);
  }
}

/** A raw volume keeps its capacity, however much is written to it. */
function leastBytes({ format, capacityBytes }: VolumeFacts): number {
  return format === "raw" ? capacityBytes : 0;
}

function refuseOtherFiles({ name, namesOtherFiles }: VolumeFacts, verb: string): void {
  if (!namesOtherFiles) return;
  throw new HypervisorError(
    "invalid-state",
    `volume '${name}' is a qcow2 that names other files, which is not ${verb}: convert it to one file first`,
  );
}

function refuseFailure(action: string, pool: XlPool, result: ProgramResult): void {
  switch (result.exitCode) {
    case 0:
      return;
    case NO_DIRECTORY:
      throw new HypervisorError(
        "not-found",
        `${action} failed: the directory of pool '${pool.name}' is not on the host; make or mount ${pool.path} there`,
      );
    case WRONG_LENGTH:
      throw new HypervisorError("failed", `${action} failed: its content arrived cut off`);
    default:
      throw commandFailed(action, result);
  }
}

function toObserved(pool: XlPool, facts: VolumeFacts): ObservedVolume {
  const { name, capacityBytes, allocationBytes } = facts;
  return { pool: pool.name, name, path: volumePath(pool.path, name), capacityBytes, allocationBytes };
}

function noSuchVolume({ pool, name }: VolumeRef): HypervisorError {
  return new HypervisorError("not-found", `pool '${pool}' has no volume '${name}'`);
}
