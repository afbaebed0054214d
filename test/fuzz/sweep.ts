import type { Parameter, Route, Schema } from "./document.ts";
import { type Fitting, fittingValue } from "./fitting.ts";
import type { Random } from "./random.ts";

/** Every member of every body, every parameter and every header, one at a time wrong in a request otherwise right. */

/** One thing that is wrong with one request. */
export type SweepCase =
  | {
      readonly kind: "member";
      readonly route: Route;
      readonly path: readonly string[];
      readonly value: Wrong;
    }
  | {
      readonly kind: "parameter" | "header";
      readonly route: Route;
      readonly name: string;
      readonly value: string;
    };

/** A value in the place of the right one, or nothing there. */
type Wrong = { readonly value: unknown } | "missing";

const WRONG_VALUES: readonly Wrong[] = [
  "missing",
  ...[null, {}, [], true, -1, 0.5, 2 ** 53, 1e308].map((value) => ({ value })),
  ...["", "a\u0000b", "\ud800", "a\nb", "x".repeat(70_000), "../..", '<a>&"', "$(id)`id`"].map((value) => ({
    value,
  })),
];
const WRONG_PARAMETERS = [
  "",
  "a\u0000b",
  "-1",
  "99999999999999999999",
  "x".repeat(3000),
  "../..",
  "'\"<&$(id)",
];
const WRONG_PARAMETERS_OF_WAIT = ["", "-1", "61", "x"];

const WRONG_HEADERS: readonly (readonly [name: string, values: readonly string[]])[] = [
  ["If-Match", ["x", '"', "W/", ""]],
  ["Idempotency-Key", ["a b", "x".repeat(256)]],
];
const WRONG_AUTHORIZATIONS = ["Bearer x", "Basic eDp5"];

/** The first of every choice and everything that is optional: the most usual and most complete request. */
const FIRST: Random = {
  below: () => 0,
  chance: () => true,
  pick: <Item>(list: readonly Item[]): Item => {
    if (list.length === 0) throw new Error("nothing to pick from");
    return list[0] as Item;
  },
};

export function sweepCases(fitting: Omit<Fitting, "random">, routes: readonly Route[]): readonly SweepCase[] {
  return routes.flatMap((route) => [
    ...route.parameters.flatMap((parameter) => ofParameter(route, parameter)),
    ...WRONG_AUTHORIZATIONS.map((value) => ({
      kind: "header" as const,
      route,
      name: "Authorization",
      value,
    })),
    ...ofBody(fitting, route),
  ]);
}

function ofParameter(route: Route, parameter: Parameter): SweepCase[] {
  const { name } = parameter;
  if (parameter.in === "query") {
    const values = name === "wait" ? WRONG_PARAMETERS_OF_WAIT : WRONG_PARAMETERS;
    return values.map((value) => ({ kind: "parameter", route, name, value }));
  }
  const values = WRONG_HEADERS.find(([header]) => header === name)?.[1] ?? [];
  return values.map((value) => ({ kind: "header", route, name, value }));
}

function ofBody(fitting: Omit<Fitting, "random">, route: Route): SweepCase[] {
  const schema = jsonSchemaOf(route);
  if (schema === null) return [];
  const paths = pathsIn(completeValue(fitting, schema));
  return paths.flatMap((path) =>
    WRONG_VALUES.map((value) => ({ kind: "member" as const, route, path, value })),
  );
}

export function jsonSchemaOf(route: Route): Schema | null {
  return route.body.find(([type]) => type === "application/json")?.[1] ?? null;
}

/** A value with every member that the schema knows. */
export function completeValue(fitting: Omit<Fitting, "random">, schema: Schema): unknown {
  return fittingValue({ ...fitting, random: FIRST, isComplete: true }, schema);
}

function pathsIn(value: unknown): string[][] {
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, child]) => [
    [key],
    ...pathsIn(child).map((rest) => [key, ...rest]),
  ]);
}

/** A copy of `value` with what stands at `path` replaced or left out. */
export function withWrong(value: unknown, path: readonly string[], wrong: Wrong): unknown {
  const copy: unknown = structuredClone(value);
  const [last = "", ...parents] = path.toReversed();
  const place = parents
    .toReversed()
    .reduce<unknown>((at, key) => Reflect.get(at as object, key), copy) as object;
  if (wrong === "missing") Reflect.deleteProperty(place, last);
  else Reflect.set(place, last, wrong.value);
  return copy;
}
