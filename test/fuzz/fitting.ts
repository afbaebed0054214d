import fc from "fast-check";
import { type ApiDocument, resolve, type Schema } from "./document.ts";
import { NASTY_TEXTS } from "./nasty.ts";
import type { Random } from "./random.ts";

/** Values that fit their schemas, made so that many of them mean something: names of what is there, small machines. */

/**
 * Names and ids that requests may refer to, by what they are of: `vm`, `host`, `image`, `sshKey`, `network`, `nic`,
 * `volume`, `disk`, `token`, `operation`.
 */
export type Known = Readonly<Record<string, readonly string[]>>;

export interface Fitting {
  readonly document: ApiDocument;
  readonly known: Known;
  readonly random: Random;
  /** Everything that may be there is there, in the richest of its forms. */
  readonly isComplete?: boolean;
}

/** Hosts that a request may register: simulated ones, and addresses of this machine where nobody listens. */
const HOST_URIS = [
  ...["sim+kvm://fuzz-1", "sim+kvm://fuzz-2?cpus=4&memoryGib=4&numa=2", "sim+xen://fuzz-3?memoryGib=2"],
  ...["sim+kvm://fuzz-4?failRate=1", "qemu+tcp://127.0.0.1:1/system", "qemu+tls://127.0.0.1:1/system"],
  ...["qemu+unix:///system?socket=/nonexistent/socket", "qemu+ssh://root@127.0.0.1:1/system"],
];
/** The first is allowed to be fetched from, and refuses. */
const IMPORT_URLS = ["http://127.0.0.1:1/disk.img", "https://192.0.2.1/disk.img", "http://[::1]:1/x"];
const PEM = "-----BEGIN OPENSSH PRIVATE KEY-----\nYQ==\n-----END OPENSSH PRIVATE KEY-----\n";
const USER_DATA = [
  ...[
    null,
    "#cloud-config\nusers: [default]\n",
    "#cloud-config\nhostname: x\n",
    "#!/bin/sh\n:\n",
    "#cloud-config\n{",
  ],
  ...NASTY_TEXTS,
];
/** How many names things get, so that they often meet. */
export const NAME_COUNT = 30;

const USUAL_DISKS = [[{ name: "root", sizeGib: 1 }], [{ name: "root", image: "disk" }]];

/** Members and parameters whose schema does not say enough; by their names. Undefined: as the schema says. */
const BY_NAME: Readonly<Record<string, (fitting: Fitting) => unknown>> = {
  host: ({ known, random }) => random.pick([...(known["host"] ?? []), "missing"]),
  confirmName: ({ known, random }) => random.pick(known["host"] ?? ["missing"]),
  image: ({ known, random }) => random.pick(["disk", "disk", "kernel", "missing", ...(known["image"] ?? [])]),
  volume: ({ known, random }) => random.pick([...(known["volume"] ?? []), "missing"]),
  kernel: ({ random }) => random.pick(["kernel", "kernel", "disk", "missing"]),
  initrd: ({ random }) => random.pick(["initrd", "initrd", "kernel"]),
  network: ({ known, random }) =>
    random.pick(["default", "default", "host:default", "other", ...(known["network"] ?? [])]),
  cidr: ({ random }) =>
    random.pick([`10.${random.below(250)}.0.0/24`, "10.0.0.0/30", "fd00:1::/64", "10.0.0.1/8", "x"]),
  ipv4Address: ({ random }) => `10.200.0.${random.below(256)}`,
  pool: ({ random }) => random.pick(["default", "default", "other"]),
  project: ({ random }) => random.pick(["default", "default", "default", "missing"]),
  uri: ({ random }) => random.pick(HOST_URIS),
  url: ({ random }) => (random.chance(0.6) ? IMPORT_URLS[0] : random.pick(IMPORT_URLS)),
  memoryMib: ({ random }) => random.pick([16, 64, 64, 64, 64, 128, 256, 4096, 67_108_864]),
  sizeGib: ({ random }) => random.pick([1, 1, 1, 2, 10, 65_536]),
  count: ({ random }) => random.pick([1, 1, 1, 1, 2, 4, 1024]),
  disks: ({ random }) => (random.chance(0.7) ? random.pick(USUAL_DISKS) : undefined),
  nics: ({ random }) => (random.chance(0.7) ? [{ name: "eth0", network: "default" }] : undefined),
  boot: ({ random }) =>
    random.chance(0.5) ? { firmware: random.pick(["bios", "bios", "pvgrub"]) } : undefined,
  timeoutSeconds: () => 1,
  wait: ({ random }) => random.pick(["0", "1"]),
  pageSize: ({ random }) => random.pick(["1", "2", "50", "0", "-5", "100000"]),
  pageToken: ({ known, random }) => random.pick(known["pageToken"] ?? ["x"]),
  after: ({ random }) => random.pick(["0", "1", "20", "999999999999999999"]),
  subject: ({ known, random }) => random.pick(known["operation"] ?? ["x"]),
  operation: ({ known, random }) => random.pick(known["operation"] ?? ["x"]),
  labelSelector: ({ random }) => random.pick(["role=web,tier!=db", "env in (a,b),!legacy", "owner", ""]),
  commandLine: ({ random }) => random.pick(["console=ttyS0", "", ...NASTY_TEXTS]),
  expiresAt: ({ random }) => random.pick(["2099-01-01T00:00:00Z", "2001-01-01T00:00:00+01:00"]),
  macAddress: ({ random }) => `52:54:00:00:00:${String(10 + random.below(80))}`,
  privateKey: () => PEM,
  sshKeys: ({ known, random }) =>
    random.chance(0.8) ? [random.pick(known["sshKey"] ?? ["missing"])] : undefined,
  userData: ({ random }) => random.pick(USER_DATA),
  networkConfig: ({ random }) => random.pick([null, null, "version: 2\n", "version: 3\n"]),
};

/** A name of a thing: often one that is taken. */
function someName({ known, random }: Fitting): string {
  const taken = [...(known["vm"] ?? []), ...(known["host"] ?? []), ...(known["image"] ?? [])];
  return random.chance(0.2) && taken.length > 0 ? random.pick(taken) : `fuzz-${random.below(NAME_COUNT)}`;
}

const MAX_DEPTH = 10;

/** A value of this schema; `name` is that of its member or parameter. */
export function fittingValue(fitting: Fitting, given: Schema, name = "", depth = 0): unknown {
  const { document, random } = fitting;
  const schema = resolve(document, given);
  if (depth > MAX_DEPTH) return null;
  const branches = schema.anyOf ?? schema.oneOf;
  const isWhole = fitting.isComplete === true && (branches !== undefined || schema.type === "array");
  const usual = schema.properties === undefined && !isWhole ? BY_NAME[name]?.(fitting) : undefined;
  if (usual !== undefined) return usual;
  if (branches !== undefined) {
    const branch = isWhole ? richest(document, branches) : random.pick(branches);
    return fittingValue(fitting, branch, name, depth + 1);
  }
  if (schema.const !== undefined) return schema.const;
  if (schema.enum !== undefined) return random.pick(schema.enum);
  switch (String(schema.type)) {
    case "object":
      return fittingObject(fitting, schema, depth);
    case "array":
      return fittingArray(fitting, schema, name, depth);
    case "integer":
    case "number":
      return fittingNumber(fitting, schema);
    case "boolean":
      return random.chance(0.5);
    case "null":
      return null;
    default:
      return fittingText(fitting, schema, name);
  }
}

/** The branch with the most members. */
function richest(document: ApiDocument, branches: readonly Schema[]): Schema {
  const size = (branch: Schema): number => Object.keys(resolve(document, branch).properties ?? {}).length;
  return branches.toSorted((a, b) => size(b) - size(a))[0] ?? {};
}

const LABELS: readonly Readonly<Record<string, string>>[] = [{ role: "web" }, { role: "db", tier: "" }, {}];

function fittingObject(fitting: Fitting, schema: Schema, depth: number): unknown {
  const { random } = fitting;
  if (schema.properties === undefined) return { ...random.pick(LABELS) };
  const required = new Set(schema.required ?? []);
  const chosen = Object.entries(schema.properties).filter(([key]) => required.has(key) || random.chance(0.3));
  return Object.fromEntries(
    chosen.map(([key, child]) => [key, fittingValue(fitting, child, key, depth + 1)] as const),
  );
}

const MOST_ITEMS = 2;

function fittingArray(fitting: Fitting, schema: Schema, name: string, depth: number): unknown[] {
  const least = schema.minItems ?? 0;
  const length = fitting.isComplete === true ? 1 : least + fitting.random.below(MOST_ITEMS + 1);
  return Array.from({ length }, () => fittingValue(fitting, schema.items ?? {}, name, depth + 1));
}

function fittingNumber({ random }: Fitting, { type, minimum = 0, maximum = 2 ** 31 - 1 }: Schema): number {
  const between = minimum + random.below(Math.min(maximum - minimum, 5) + 1);
  const value = random.pick([minimum, maximum, between, between, between]);
  return type === "integer" ? Math.ceil(value) : value;
}

function fittingText(fitting: Fitting, schema: Schema, name: string): string {
  const { random } = fitting;
  const isName = schema.pattern?.startsWith("^[a-z0-9]([a-z0-9-]{0,61}") ?? false;
  if (name === "name" || isName) return someName(fitting);
  if (schema.examples !== undefined) return String(random.pick(schema.examples));
  const pattern = schema.pattern ?? schema.allOf?.at(-1)?.pattern;
  if (pattern === undefined || pattern.includes("\\p{")) {
    return random.pick(["text", "Ä 🐑 <&>\"'", "$(id) `id`", "x".repeat(schema.maxLength ?? 20)]);
  }
  const seed = random.below(2 ** 31);
  return fc.sample(fc.stringMatching(new RegExp(pattern, "u")), { seed, numRuns: 1 })[0] ?? "";
}
