import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { SIM_CALLS } from "../../../../src/hypervisors/sim/sim-calls.ts";
import { SIM_CONTROL_FUNCTIONS } from "../../../../src/hypervisors/sim/sim-control-functions-store.ts";
import { SIM_PARAMETERS } from "../../../../src/hypervisors/sim/sim-uri.ts";

const page = readFileSync(new URL("../../../../docs/simulator.md", import.meta.url), "utf8");
/** Functions that only help the others. */
const INNER = ["host_id", "domain_for_control", "end_connections"];

describe("docs/simulator.md", () => {
  it("names every parameter, and no other", () => {
    const named = [...page.matchAll(/^\| `([a-zA-Z]+)` \|/gm)].map(([, name]) => name);
    expect(named.sort()).toEqual([...SIM_PARAMETERS].sort());
  });

  it("names every call that can be told to fail", () => {
    for (const call of SIM_CALLS) expect(page).toContain(`\`${call}\``);
  });

  it("names every function that plays fate, with its arguments", () => {
    const functions = [...SIM_CONTROL_FUNCTIONS.matchAll(/CREATE FUNCTION sim\.(\w+)\(([^)]*)\)/g)];
    const outer = functions.filter(([, name = ""]) => !INNER.includes(name));
    const named = [...page.matchAll(/^\| `sim\.(\w+)\(([^)]*)\)` \|/gm)];
    const signature = ([, name, args = ""]: RegExpExecArray): string =>
      `${name ?? ""}/${args.split(",").length}`;
    expect(named.map(signature).sort()).toEqual(outer.map(signature).sort());
    expect(outer.length).toBeGreaterThan(10);
  });
});
