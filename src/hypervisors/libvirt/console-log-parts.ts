/**
 * virtlogd writes a console log and turns it over: at 2 MiB the file becomes `.0`, what was `.0` becomes `.1`, and
 * so on up to three (virtlogd.conf: max_size, max_backups). An administrator may allow more.
 */
const MAX_PARTS = 32;

/** The log's file in its pool. It bears the domain's UUID, so no other installation has one of this name. */
export function consoleLogName(uuid: string): string {
  return `console-${uuid}.log`;
}

/** Names of the log's parts, the newest first: the file itself, then what was turned over. */
export function consoleLogPartNames(uuid: string): readonly string[] {
  const name = consoleLogName(uuid);
  return [name, ...Array.from({ length: MAX_PARTS }, (_, index) => `${name}.${index}`)];
}

/** A part of the log as it lies in its pool. */
export interface LogPart<Source> {
  readonly source: Source;
  readonly sizeBytes: number;
}

/** What is to be read of one part. */
export interface LogRange<Source> {
  readonly source: Source;
  readonly offset: number;
  readonly length: number;
}

/** Which bytes of which parts make up the log's last `maxBytes`, the oldest first. `parts`: the newest first. */
export function tailRanges<Source>(parts: readonly LogPart<Source>[], maxBytes: number): LogRange<Source>[] {
  const ranges: LogRange<Source>[] = [];
  let missing = maxBytes;
  for (const { source, sizeBytes } of parts) {
    const length = Math.min(sizeBytes, missing);
    if (length > 0) ranges.unshift({ source, offset: sizeBytes - length, length });
    missing -= length;
  }
  return ranges;
}
