import { isUuid } from "../../lib/ids.ts";
import type { DomainSpec } from "../hypervisor.ts";
import { readDefinition } from "./domain-definition.ts";
import { unreadable } from "./errors.ts";
import { type ListedDomain, parseList } from "./parse-list.ts";
import { Sections } from "./parse-sections.ts";

/** A definition on the host: ours, or another installation's. */
export interface FoundDefinition {
  readonly uuid: string;
  readonly installationId: string;
  /** Null for one that cannot be read: another installation may be of a later time. */
  readonly spec: DomainSpec | null;
  /** What it was created by when it was last started from nothing; null where it never was. */
  readonly startedAs: DomainSpec | null;
  readonly isSaved: boolean;
}

/** What one look at the host's domains shows. */
export interface DomainsSeen {
  readonly listed: readonly ListedDomain[];
  readonly definitions: readonly FoundDefinition[];
  /** UUIDs of our domains for which xl's daemon or a change acts. */
  readonly served: ReadonlySet<string>;
  /** The ids of those that Drover has paused, by UUID. */
  readonly pausedByUs: ReadonlyMap<string, number>;
}

/** `…/<installation>/domains/<uuid>/<file>`, with what grep adds behind a colon. */
const DOMAIN_FILE = /^[^:]*\/(?<installation>[^/:]+)\/domains\/(?<uuid>[^/:]+)\/[a-z.]+(?::(?<line>.*))?$/;
const LOCK_FILE = /\/(?<uuid>[^/]+)\.lock$/;

/** Reads what the host program tells of domains. Throws HypervisorError (`failed`) for anything else. */
export function parseDomains(text: string, installationId: string): DomainsSeen {
  const sections = new Sections(text);
  const saved = new Set(sections.lines("saved").map((path) => keyOf(readPath(path))));
  const current = new Map(
    sections.lines("current").map((line) => {
      const path = readPath(line);
      return [keyOf(path), path.content];
    }),
  );
  return {
    listed: parseList(sections.text("list").replace(/^\n+/, "")),
    definitions: sections.lines("domain").flatMap((line) => {
      const path = readPath(line);
      const { installation, uuid, content } = path;
      if (!isUuid(installation) || !isUuid(uuid)) return [];
      const read = installation === installationId ? readOurs : readOthers;
      const startedAs = current.get(keyOf(path));
      return {
        uuid,
        installationId: installation,
        spec: read(content),
        startedAs: startedAs === undefined ? null : readOthers(startedAs),
        isSaved: saved.has(keyOf(path)),
      };
    }),
    served: new Set(servedIn(sections.text("served")).map((line) => lockedUuid(line) ?? readPath(line).uuid)),
    pausedByUs: new Map(
      sections.lines("paused").map((line) => {
        const { uuid, content } = readPath(line);
        return [uuid, Number(content)];
      }),
    ),
  };
}

function keyOf({ installation, uuid }: { readonly installation: string; readonly uuid: string }): string {
  return `${installation}/${uuid}`;
}

function readPath(line: string): {
  readonly installation: string;
  readonly uuid: string;
  readonly content: string;
} {
  const { installation, uuid, line: content = "" } = DOMAIN_FILE.exec(line)?.groups ?? {};
  if (installation === undefined || uuid === undefined) {
    throw unreadable("the host program", `this names no file of a domain: ${line.slice(0, 200)}`);
  }
  return { installation, uuid, content };
}

/** Arguments of processes end in a NUL, names of locks in a line's end. */
function servedIn(text: string): readonly string[] {
  return text.split(/[\0\n]/).filter((path) => path !== "");
}

function lockedUuid(line: string): string | null {
  return LOCK_FILE.exec(line)?.groups?.["uuid"] ?? null;
}

function readOurs(content: string): DomainSpec {
  return readDefinition(content).spec;
}

function readOthers(content: string): DomainSpec | null {
  try {
    return readDefinition(content).spec;
  } catch {
    return null; // They are looked at as far as they go.
  }
}
