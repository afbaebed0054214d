import type { Hypervisor } from "../hypervisor.ts";

/** What a simulated host's URI says, every parameter checked and defaults filled in. */
export interface SimSettings {
  readonly hypervisor: Hypervisor;
  /** The host's name: with the hypervisor it names one machine of the world, whatever the parameters. */
  readonly name: string;
  readonly cpus: number;
  readonly memoryGib: number;
  /** NUMA cells, each with an equal part of the CPUs and the memory. */
  readonly numa: number;
  /** Capacity of the pool `default`. */
  readonly poolGib: number;
  /** Mean duration of a call; each takes from half of it to one and a half times as long. */
  readonly latencyMs: number;
  /** From a request for shutdown to the guest being off. */
  readonly guestStopMs: number;
  /** From a guest's reboot until its domain is seen again: on Xen it is another one, of the same name and UUID. */
  readonly rebootGapMs: number;
  /** 1: an agent runs in every guest; 0: in none. */
  readonly guestAgents: number;
  /** Share of calls, 0 to 1, that fail before they do anything. */
  readonly failRate: number;
  /** Share of calls that never answer. */
  readonly hangRate: number;
  /** Share of calls that take effect and then fail. */
  readonly loseAnswerRate: number;
  /** Fixes which calls are slow, fail or hang. Null: drawn from the host's name. */
  readonly seed: number | null;
}

type Parameter = Exclude<keyof SimSettings, "hypervisor" | "name">;

interface Rule {
  readonly kind: "integer" | "share";
  readonly min: number;
  readonly max: number;
  readonly byDefault: number | Readonly<Record<Hypervisor, number>>;
}

const share: Rule = { kind: "share", min: 0, max: 1, byDefault: 0 };
const HOUR_MS = 3_600_000;

/** Bounds are those of large real machines, and an hour for durations. `seed` has no default: see SimSettings. */
const RULES: Readonly<Record<Parameter, Rule>> = {
  cpus: { kind: "integer", min: 1, max: 4096, byDefault: 16 },
  memoryGib: { kind: "integer", min: 1, max: 65_536, byDefault: 64 },
  numa: { kind: "integer", min: 1, max: 64, byDefault: 1 },
  poolGib: { kind: "integer", min: 1, max: 1_048_576, byDefault: 1024 },
  latencyMs: { kind: "integer", min: 0, max: HOUR_MS, byDefault: 0 },
  guestStopMs: { kind: "integer", min: 0, max: HOUR_MS, byDefault: 0 },
  // As recorded on Xen 4.17.
  rebootGapMs: { kind: "integer", min: 0, max: HOUR_MS, byDefault: { kvm: 0, xen: 2000 } },
  guestAgents: { kind: "integer", min: 0, max: 1, byDefault: 0 },
  failRate: share,
  hangRate: share,
  loseAnswerRate: share,
  seed: { kind: "integer", min: 0, max: 0xffff_ffff, byDefault: 0 },
};

/** The parameters that a simulated host's URI takes. */
export const SIM_PARAMETERS: readonly string[] = Object.keys(RULES);

/** URI schemes of simulated hosts and the hypervisor that each plays. */
const HYPERVISOR_OF_SCHEME: Readonly<Record<string, Hypervisor>> = { "sim+kvm": "kvm", "sim+xen": "xen" };
export const SIM_SCHEMES: readonly string[] = Object.keys(HYPERVISOR_OF_SCHEME);

const URI = /^([a-z+]+):\/\/([^/?#]*)\/?(?:\?([^#]*))?$/;
const NAME = /^[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?$/;
const INTEGER = /^(?:0|[1-9][0-9]{0,9})$/;
const SHARE = /^(?:0(?:\.[0-9]{1,9})?|1(?:\.0{1,9})?)$/;

/** Reads a simulated host's URI. Returns its settings, or what is wrong with it and what would be right. */
export function parseSimUri(uri: string): SimSettings | { readonly error: string } {
  const [, scheme = "", name = "", query = ""] = URI.exec(uri) ?? [];
  const hypervisor = HYPERVISOR_OF_SCHEME[scheme];
  if (hypervisor === undefined) {
    return {
      error: "a simulated host's URI has the form sim+kvm://NAME?cpus=16&memoryGib=64 or sim+xen://NAME",
    };
  }
  if (!NAME.test(name)) {
    return {
      error:
        "the name of a simulated host is 1 to 63 lower-case letters, digits, dots and dashes, with a letter or digit at both ends",
    };
  }
  const given = parseQuery(query);
  if ("error" in given) return given;
  const valueOf = (key: Parameter): number => given.values.get(key) ?? defaultOf(key, hypervisor);
  const settings: SimSettings = {
    hypervisor,
    name,
    cpus: valueOf("cpus"),
    memoryGib: valueOf("memoryGib"),
    numa: valueOf("numa"),
    poolGib: valueOf("poolGib"),
    latencyMs: valueOf("latencyMs"),
    guestStopMs: valueOf("guestStopMs"),
    rebootGapMs: valueOf("rebootGapMs"),
    guestAgents: valueOf("guestAgents"),
    failRate: valueOf("failRate"),
    hangRate: valueOf("hangRate"),
    loseAnswerRate: valueOf("loseAnswerRate"),
    seed: given.values.get("seed") ?? null,
  };
  const error = contradictionIn(settings);
  return error === null ? settings : { error };
}

/** The same settings as a URI with its parameters in a fixed order and without those that say the default. */
export function canonicalSimUri(settings: SimSettings): string {
  const query = (Object.keys(RULES) as Parameter[]).flatMap((key) => {
    const value = settings[key];
    const isDefault = key === "seed" ? value === null : value === defaultOf(key, settings.hypervisor);
    return isDefault ? [] : [`${key}=${value ?? 0}`];
  });
  const base = `sim+${settings.hypervisor}://${settings.name}`;
  return query.length === 0 ? base : `${base}?${query.join("&")}`;
}

function defaultOf(key: Parameter, hypervisor: Hypervisor): number {
  const { byDefault } = RULES[key];
  return typeof byDefault === "number" ? byDefault : byDefault[hypervisor];
}

function parseQuery(
  query: string,
): { readonly values: ReadonlyMap<string, number> } | { readonly error: string } {
  const values = new Map<string, number>();
  for (const part of query === "" ? [] : query.split("&")) {
    const [key = "", text = ""] = part.split(/=(.*)/s);
    const rule = Object.hasOwn(RULES, key) ? RULES[key as Parameter] : undefined;
    if (rule === undefined) {
      return { error: `a simulated host has no parameter "${key}"; it takes ${SIM_PARAMETERS.join(", ")}` };
    }
    if (values.has(key)) return { error: `the parameter ${key} is given twice` };
    const value = parseValue(text, rule);
    if (value === null) return { error: `${key} must be ${describeRule(rule)}` };
    values.set(key, value);
  }
  return { values };
}

function parseValue(text: string, rule: Rule): number | null {
  if (!(rule.kind === "integer" ? INTEGER : SHARE).test(text)) return null;
  const value = Number(text);
  return value >= rule.min && value <= rule.max ? value : null;
}

function describeRule(rule: Rule): string {
  return rule.kind === "integer"
    ? `a whole number from ${rule.min} to ${rule.max}`
    : "a share from 0 to 1, such as 0.01";
}

function contradictionIn(settings: SimSettings): string | null {
  if (settings.cpus % settings.numa !== 0) {
    return `cpus must be a multiple of numa: ${settings.cpus} CPUs cannot be shared equally by ${settings.numa} NUMA cells`;
  }
  if (settings.failRate + settings.hangRate + settings.loseAnswerRate > 1) {
    return "failRate, hangRate and loseAnswerRate together must not be more than 1";
  }
  return null;
}
