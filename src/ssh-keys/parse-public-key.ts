import { createHash } from "node:crypto";

/** Reads OpenSSH public keys, one line of `id_ed25519.pub`: type, base64, comment (RFC 4253, section 6.6). Pure. */

export interface PublicKey {
  readonly type: string;
  /** The key's encoded bytes. */
  readonly base64: string;
  /** What stands behind them; empty where nothing does. */
  readonly comment: string;
  /** `SHA256:…`, as `ssh-keygen -l` shows it. */
  readonly fingerprint: string;
}

export type ParsedPublicKey =
  | { readonly ok: true; readonly key: PublicKey }
  /** Reads as "must …"; never holds a part of the text. */
  | { readonly ok: false; readonly reason: string };

/** The largest RSA key, 16384 bits, takes less than 4 KiB. */
const MAX_LENGTH = 8192;
const MIN_RSA_BITS = 2048;
const MAX_RSA_BITS = 16_384;
const ED25519_BYTES = 32;
/** An uncompressed point: this byte, then both coordinates. */
const UNCOMPRESSED = 0x04;

/** Takes the fields behind the type from a key's bytes; says what is wrong with them. */
type CheckFields = (fields: Fields) => string | null;

const TYPES: Readonly<Record<string, CheckFields>> = {
  "ssh-ed25519": checkEd25519,
  "ssh-rsa": checkRsa,
  "ecdsa-sha2-nistp256": (fields) => checkEcdsa(fields, "nistp256", 32),
  "ecdsa-sha2-nistp384": (fields) => checkEcdsa(fields, "nistp384", 48),
  "ecdsa-sha2-nistp521": (fields) => checkEcdsa(fields, "nistp521", 66),
  "sk-ssh-ed25519@openssh.com": (fields) => checkEd25519(fields) ?? checkApplication(fields),
  "sk-ecdsa-sha2-nistp256@openssh.com": (fields) =>
    checkEcdsa(fields, "nistp256", 32) ?? checkApplication(fields),
};

const TYPE_NAMES = Object.keys(TYPES).join(", ");

const LINE = /^(\S+)[ \t]+(\S+)(?:[ \t]+(.*))?$/;
// Cc: control characters, line ends among them. Cs: lone halves of surrogate pairs.
const UNPRINTABLE = /[\p{Cc}\p{Cs}]/u;

/** Reads one public key; blanks around it, a last line end among them, are left off. */
export function parsePublicKey(text: string): ParsedPublicKey {
  if (text.length > MAX_LENGTH) return refuse(`must have at most ${MAX_LENGTH} characters`);
  const line = text.trim();
  if (line.includes("PRIVATE KEY"))
    return refuse("must be a public key, and this is a private one: give what stands in the .pub file");
  if (UNPRINTABLE.test(line.replaceAll("\t", " ")))
    return refuse("must be one line without control characters");
  const [, type = "", base64 = "", comment = ""] = LINE.exec(line) ?? [];
  const check = Object.hasOwn(TYPES, type) ? TYPES[type] : undefined;
  if (check === undefined)
    return refuse(`must begin with its type (${TYPE_NAMES}), without options before it`);
  const blob = Buffer.from(base64, "base64");
  if (blob.toString("base64") !== base64) return refuse("must have its bytes in base64 behind the type");
  const wrong = checkBlob(blob, type, check);
  if (wrong !== null) return refuse(wrong);
  const digest = createHash("sha256").update(blob).digest("base64").replace(/=+$/, "");
  return { ok: true, key: { type, base64, comment: comment.trim(), fingerprint: `SHA256:${digest}` } };
}

/** The key as one line, the same for the same key and comment. */
export function publicKeyLine({ type, base64, comment }: Omit<PublicKey, "fingerprint">): string {
  return comment === "" ? `${type} ${base64}` : `${type} ${base64} ${comment}`;
}

function refuse(reason: string): ParsedPublicKey {
  return { ok: false, reason };
}

function checkBlob(blob: Buffer, type: string, check: CheckFields): string | null {
  const fields = new Fields(blob);
  if (fields.next()?.toString("latin1") !== type)
    return "must have the same type in its bytes as before them: copy the whole line anew";
  return (
    check(fields) ?? (fields.isAtEnd() ? null : "must end where its type says: copy the whole line anew")
  );
}

const CUT = "must hold all parts of its type: copy the whole line anew";

function checkEd25519(fields: Fields): string | null {
  return fields.next()?.length === ED25519_BYTES ? null : CUT;
}

function checkRsa(fields: Fields): string | null {
  const exponent = positive(fields.next());
  const modulus = positive(fields.next());
  if (exponent === null || modulus === null) return CUT;
  const bits = modulus.length * 8 - Math.clz32(modulus[0] ?? 0) + 24;
  if (bits >= MIN_RSA_BITS && bits <= MAX_RSA_BITS) return null;
  return `must have ${MIN_RSA_BITS} to ${MAX_RSA_BITS} bits, and this RSA key has ${bits}`;
}

function checkEcdsa(fields: Fields, curve: string, coordinateBytes: number): string | null {
  if (fields.next()?.toString("latin1") !== curve) return CUT;
  const point = fields.next();
  return point?.length === 1 + 2 * coordinateBytes && point[0] === UNCOMPRESSED ? null : CUT;
}

/** What a security key was enrolled for, such as `ssh:`. */
function checkApplication(fields: Fields): string | null {
  const application = fields.next();
  return application === null || application.length === 0 ? CUT : null;
}

/** The digits of a positive number without the zero byte that keeps it positive; null for any other. */
function positive(field: Buffer | null): Buffer | null {
  if (field === null) return null;
  const digits = field[0] === 0 ? field.subarray(1) : field;
  const isNegative = digits === field && (field[0] ?? 0) >= 0x80;
  return isNegative || digits.length === 0 || digits[0] === 0 ? null : digits;
}

/** Byte strings, each behind its length in 32 bits (RFC 4251, section 5). */
class Fields {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  /** The next one; null where the bytes end before it does. */
  next(): Buffer | null {
    const start = this.#at + 4;
    if (start > this.#bytes.length) return null;
    const end = start + this.#bytes.readUInt32BE(this.#at);
    if (end > this.#bytes.length) return null;
    this.#at = end;
    return this.#bytes.subarray(start, end);
  }

  isAtEnd(): boolean {
    return this.#at === this.#bytes.length;
  }
}
