import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { findListed, type ListedDomain, parseList } from "../../../../src/hypervisors/xl/parse-list.ts";
import { fixture } from "./fixture.ts";
import { expectFactsOrRefusal } from "./mangled.ts";

const UUID = "5b11ba6a-4b6a-4cbe-8b23-8a5e373feef7";
const HEADER = fixture("list-v").split("\n")[0] ?? "";

interface Row {
  readonly name: string;
  readonly domid?: number;
  readonly memory?: number;
  readonly cpus?: number;
  readonly state?: string;
  readonly time?: string;
  readonly uuid?: string;
  readonly reason?: string;
  readonly label?: string;
}

/** A list as xl's printf writes it. */
function list(...rows: readonly Row[]): string {
  const lines = rows.map((row) => {
    const { name, domid = 7, memory = 96, cpus = 1, state = "------", time = "5.2", uuid = UUID } = row;
    const { reason = "-", label = "-" } = row;
    const numbers = `${String(domid).padStart(5)} ${String(memory).padStart(5)} ${String(cpus).padStart(5)}`;
    const end = `${uuid} ${reason.padStart(8)} ${label.padStart(16)}`;
    return `${name.padEnd(40)} ${numbers}     ${state}  ${time.padStart(8)} ${end}`;
  });
  return [HEADER, ...lines, ""].join("\n");
}

function only(row: Omit<Row, "name"> & { readonly name?: string }): ListedDomain {
  const [domain] = parseList(list({ name: "a", ...row }));
  if (domain === undefined) throw new Error("the row was not read");
  return domain;
}

describe("xl list -v", () => {
  it("of a real host is read", () => {
    expect(parseList(fixture("list-v"))).toEqual([
      {
        name: "Domain-0",
        domid: 0,
        memoryMib: 1024,
        cpuCount: 2,
        isPaused: false,
        isDying: false,
        shutdown: null,
        cpuSeconds: 235,
        uuid: "00000000-0000-0000-0000-000000000000",
      },
      {
        name: "tiny-pv",
        domid: 1,
        memoryMib: 96,
        cpuCount: 1,
        isPaused: false,
        isDying: false,
        shutdown: null,
        cpuSeconds: 10.2,
        uuid: "9448718e-eafa-4391-9a7e-1703573447d5",
      },
    ]);
  });

  it("of a real host with guests that panicked tells so", () => {
    const found = parseList(fixture("list-v-crashed"));
    expect(found.map(({ name, shutdown }) => [name, shutdown])).toEqual([
      ["Domain-0", null],
      ["a", "crash"],
      ["crash-preserve", "crash"],
    ]);
  });

  it("with the NUMA nodes behind reads the same", () => {
    const withoutTime = (name: string) => parseList(fixture(name)).map((row) => ({ ...row, cpuSeconds: 0 }));
    expect(withoutTime("list-v-numa")).toEqual(withoutTime("list-v"));
  });

  it.each([
    ["------", "-", { isPaused: false, isDying: false, shutdown: null }],
    ["r-----", "-", { isPaused: false, isDying: false, shutdown: null }],
    ["-b----", "-", { isPaused: false, isDying: false, shutdown: null }],
    ["--p---", "-", { isPaused: true, isDying: false, shutdown: null }],
    ["-bp---", "-", { isPaused: true, isDying: false, shutdown: null }],
    ["---s--", "0", { isPaused: false, isDying: false, shutdown: "poweroff" }],
    ["---sr-", "1", { isPaused: false, isDying: false, shutdown: "reboot" }],
    ["--psr-", "1", { isPaused: true, isDying: false, shutdown: "reboot" }],
    ["---ss-", "2", { isPaused: false, isDying: false, shutdown: "suspend" }],
    ["---sc-", "3", { isPaused: false, isDying: false, shutdown: "crash" }],
    ["--psc-", "3", { isPaused: true, isDying: false, shutdown: "crash" }],
    ["---sw-", "4", { isPaused: false, isDying: false, shutdown: "watchdog" }],
    ["---sS-", "5", { isPaused: false, isDying: false, shutdown: "soft-reset" }],
    ["---s?-", "ff", { isPaused: false, isDying: false, shutdown: "unknown" }],
    // The code is in hexadecimal: this is 31, not 1.
    ["---s?-", "1f", { isPaused: false, isDying: false, shutdown: "unknown" }],
    ["-----d", "-", { isPaused: false, isDying: true, shutdown: null }],
    ["--pscd", "3", { isPaused: true, isDying: true, shutdown: "crash" }],
  ])("with the letters %s and the reason %s is %o", (state, reason, expected) => {
    expect(only({ state, reason })).toMatchObject(expected);
  });

  it("of a domain that has no name any more gives none", () => {
    expect(only({ name: "(null)", memory: 0, state: "--pscd", reason: "3" })).toMatchObject({
      name: null,
      memoryMib: 0,
    });
  });

  it("of a domain that is being built has no CPU yet", () => {
    expect(only({ cpus: 0, state: "--p---", time: "0.0" })).toMatchObject({ cpuCount: 0, cpuSeconds: 0 });
  });

  it("with any name, ids beyond their columns and any label is read", () => {
    // Printed with blanks behind it, a name that ends in one cannot be told from one that does not.
    const name = fc.string({ minLength: 1, maxLength: 60 }).filter((text) => !text.includes("\n"));
    const row = fc.record({
      name: name.filter((text) => text.trimEnd() === text && text !== "(null)" && text !== ""),
      domid: fc.nat(),
      memory: fc.nat(),
      label: fc.constantFrom("-", "system_u:system_r:dom0_t"),
    });
    fc.assert(
      fc.property(fc.array(row, { maxLength: 4 }), (rows) => {
        const found = parseList(list(...rows));
        expect(found.map((domain) => [domain.name, domain.domid, domain.memoryMib])).toEqual(
          rows.map((each) => [each.name, each.domid, each.memory]),
        );
      }),
    );
  });

  it.each([
    ["a row of another list in its name", `x 1 96 1     r-----  10.2 ${UUID}        -                -`],
    ["blanks", "my old guest"],
  ])("of a name with %s is read", (_what, name) => {
    expect(only({ name })).toMatchObject({ name, domid: 7 });
  });

  it("without the columns of -v is refused, and so are other lines", () => {
    expect(() => parseList(fixture("list"))).toThrow("does not begin as it should");
    expect(() => parseList("")).toThrow("does not begin as it should");
    expect(() => parseList(`${HEADER}\nlibxl: error\n`)).toThrow("not one of a domain: libxl: error");
  });

  it("mangled gives facts or a refusal", () => {
    expectFactsOrRefusal(parseList, [fixture("list-v"), fixture("list-v-crashed")], (domains) => {
      for (const { domid, uuid } of domains) {
        expect(Number.isSafeInteger(domid)).toBe(true);
        expect(uuid).toMatch(/^[0-9a-f-]{36}$/);
      }
    });
  });
});

describe("a domain of the list", () => {
  it("is found by its UUID, the dying one left out", () => {
    const domains = parseList(
      list(
        { name: "(null)", domid: 5, state: "--psrd", reason: "1" },
        { name: "a", domid: 6, state: "--p---" },
        { name: "b", domid: 9, uuid: UUID.replace("5", "6") },
      ),
    );
    expect(findListed(domains, UUID)).toMatchObject({ name: "a", domid: 6 });
    expect(findListed(domains.slice(0, 1), UUID)).toBeNull();
    expect(findListed([], UUID)).toBeNull();
  });

  it("is the latest where two carry the same UUID", () => {
    const domains = parseList(list({ name: "b", domid: 12 }, { name: "a", domid: 6 }));
    expect(findListed(domains, UUID)).toMatchObject({ domid: 12 });
  });
});
