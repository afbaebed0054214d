import { loadAll, realMapTag, YAML11_SCHEMA, YAMLException } from "js-yaml";

/** What clients give cloud-init themselves, checked as far as cloud-init would. Pure; no reason holds any of the text. */

/** What every cloud takes at least; a larger script is downloaded by a smaller one. */
export const MAX_TEXT_BYTES = 64 * 1024;

export type CheckedUserData =
  | {
      readonly ok: true;
      /** The keys and values of a cloud-config; null for a script or a MIME message, which nobody looks into here. */
      readonly config: YamlMap | null;
    }
  | { readonly ok: false; readonly reason: string };

export type YamlMap = ReadonlyMap<unknown, unknown>;

const CLOUD_CONFIG = /^#cloud-config[ \t]*\r?(\n|$)/;
const SCRIPT = /^#!./;
const MIME = /^(Content-Type: *multipart\/|MIME-Version:)/i;
// Lone halves of surrogate pairs, which UTF-8 cannot hold, and NUL, which ends a text for many a program.
const UNWRITABLE = /[\p{Cs}\0]/u;

// What cloud-init reads it with is YAML 1.1.
const SCHEMA = YAML11_SCHEMA.withTags(realMapTag);

/** Checks user-data: a cloud-config, a script, or a MIME message of several. */
export function checkUserData(text: string): CheckedUserData {
  const unwritable = unwritableText(text);
  if (unwritable !== null) return { ok: false, reason: unwritable };
  if (SCRIPT.test(text) || MIME.test(text)) return { ok: true, config: null };
  if (!CLOUD_CONFIG.test(text)) {
    const reason =
      "must begin with the line #cloud-config, with #! as a script, or with the Content-Type of a MIME multipart message";
    return { ok: false, reason };
  }
  const read = readYaml(text);
  return read.ok ? { ok: true, config: read.map ?? new Map() } : read;
}

/** What is wrong with a network configuration of version 1 or 2; null: nothing. */
export function wrongNetworkConfig(text: string): string | null {
  const unwritable = unwritableText(text);
  if (unwritable !== null) return unwritable;
  const read = readYaml(text);
  if (!read.ok) return read.reason;
  const config = read.map?.get("network") ?? read.map;
  const version: unknown = config instanceof Map ? config.get("version") : undefined;
  return version === 1 || version === 2 ? null : "must be a YAML mapping with version 1 or 2";
}

function unwritableText(text: string): string | null {
  if (Buffer.byteLength(text) > MAX_TEXT_BYTES) return `must have at most ${MAX_TEXT_BYTES} bytes in UTF-8`;
  return UNWRITABLE.test(text) ? "must not contain NUL, or characters that UTF-8 cannot hold" : null;
}

type Read =
  | { readonly ok: true; readonly map: YamlMap | null }
  | { readonly ok: false; readonly reason: string };

/** Reads one mapping; null for a text of comments alone. */
function readYaml(text: string): Read {
  let documents: readonly unknown[];
  try {
    documents = loadAll(text, { schema: SCHEMA });
  } catch (error) {
    return { ok: false, reason: `must be valid YAML${placeOf(error)}` };
  }
  const [document = null] = documents;
  if (documents.length > 1) return { ok: false, reason: "must be one YAML document" };
  if (document !== null && !(document instanceof Map)) return { ok: false, reason: "must be a YAML mapping" };
  return { ok: true, map: document };
}

/** Only where: the library's message quotes the text, which may be a secret. */
function placeOf(error: unknown): string {
  if (!(error instanceof YAMLException) || error.mark === undefined) return "";
  return `: there is a mistake at line ${error.mark.line + 1}, column ${error.mark.column + 1}`;
}
