import { NASTY_KEYS, NASTY_TEXTS, NASTY_VALUES } from "./nasty.ts";
import type { Random } from "./random.ts";

/** Makes a good body bad: in its value, in its text, or in its bytes. */

/** A copy of `value` with one member replaced, removed or added, at any depth. */
export function spoilValue(random: Random, value: unknown): unknown {
  const copy: unknown = structuredClone(value);
  const places = containersIn(copy);
  if (places.length === 0 || random.chance(0.03)) return random.pick(NASTY_VALUES);
  const place = random.pick(places);
  const keys = Object.keys(place);
  const how = random.pick(["replace", "replace", "replace", "remove", "add", "lengthen"] as const);
  if (how === "add" || keys.length === 0)
    Reflect.set(place, random.pick(NASTY_KEYS), random.pick(NASTY_VALUES));
  else if (how === "remove") Reflect.deleteProperty(place, random.pick(keys));
  else if (how === "replace") Reflect.set(place, random.pick(keys), random.pick(NASTY_VALUES));
  else lengthen(random, place, random.pick(keys));
  return copy;
}

/** A text that was good with something bad in it; a list with far too many items. */
function lengthen(random: Random, place: object, key: string): void {
  const old: unknown = Reflect.get(place, key);
  if (Array.isArray(old))
    Reflect.set(
      place,
      key,
      Array.from({ length: 300 }, () => (old[0] as unknown) ?? "x"),
    );
  else Reflect.set(place, key, `${String(old)}${random.pick(NASTY_TEXTS)}`);
}

function containersIn(value: unknown): object[] {
  if (typeof value !== "object" || value === null) return [];
  return [value, ...Object.values(value).flatMap((child: unknown) => containersIn(child))];
}

const WHOLE_TEXTS: readonly string[] = [
  ...[
    "",
    " ",
    "null",
    "true",
    "0",
    "-",
    '"x"',
    "[]",
    "{",
    "}",
    "[",
    '{"a"',
    '{"a":}',
    "{,}",
    "{'a':1}",
    "NaN",
  ],
  ...[
    "// x\n{}",
    "{}{}",
    "{} x",
    "\ufeff{}",
    "\u0000",
    "{\u0000}",
    '{"a":"\n"}',
    '{"a":01}',
    '{"a":+1}',
    '{"a":.5}',
  ],
  ...[
    '{"a":1e400}',
    '{"a":-1e400}',
    '{"a":"\\ud800"}',
    '{"a":"\\x41"}',
    '{"a":"\\u00zz"}',
    "<?xml version='1.0'?>",
  ],
  ...["[".repeat(5000), "[".repeat(100_000), `${'{"a":'.repeat(500)}1${"}".repeat(500)}`, "a=b&c=d"],
  ...['{"__proto__":{"name":"x"}}', '{"\\u005f_proto__":1}', '{"constructor":{"prototype":{"x":1}}}'],
  ...[`{"name":"${"x".repeat(200_000)}"}`, `{"a":"${"x".repeat(1_100_000)}"}`, `[${"0,".repeat(100_000)}0]`],
];

/** Bytes that are no JSON of this value, or are more than that. */
export function spoilText(random: Random, text: string): Buffer {
  switch (random.below(7)) {
    case 0:
      return Buffer.from(random.pick(WHOLE_TEXTS));
    case 1:
      return Buffer.from(text.slice(0, random.below(Math.max(1, text.length))));
    case 2:
      return Buffer.from(doubleFirstKey(text));
    case 3:
      return Buffer.from(text.replace("{", `{${random.pick(EXTRA_MEMBERS)}`));
    case 4:
      return splice(random, Buffer.from(text), random.pick(BROKEN_UTF8));
    case 5:
      return splice(random, Buffer.from(text), Buffer.from(random.pick(NASTY_TEXTS)));
    default:
      return Buffer.from(`${text}${random.pick(["}", " x", "\u0000", ",", text])}`);
  }
}

const EXTRA_MEMBERS: readonly string[] = [
  ...[
    '"__proto__":{"name":"x"},',
    '"\\u006eame":"other",',
    `"a":${"[".repeat(40)}${"]".repeat(40)},`,
    '"a":1e999,',
  ],
  ...['"name":"x","name":"y",', '"":null,'],
];

const BROKEN_UTF8: readonly Buffer[] = [
  ...[
    [0xff],
    [0xc0, 0xaf],
    [0xc3],
    [0xed, 0xa0, 0x80],
    [0xf8, 0x88, 0x80, 0x80, 0x80],
    [0xf4, 0x90, 0x80, 0x80],
  ],
  ...[[0xef, 0xbb, 0xbf], [0x80], [0x00], [0xe2, 0x82]],
].map((bytes) => Buffer.from(bytes));

function splice(random: Random, bytes: Buffer, inserted: Buffer): Buffer {
  const at = random.below(bytes.length + 1);
  return Buffer.concat([bytes.subarray(0, at), inserted, bytes.subarray(at)]);
}

/** `{"name":"a"}` becomes `{"name":"a","name":"a"}`, with the first key whatever it is. */
function doubleFirstKey(text: string): string {
  const key = /"[^"]*":/.exec(text)?.[0];
  return key === undefined ? '{"a":1,"a":1}' : text.replace("{", `{${key}1,`);
}
