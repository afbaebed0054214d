import { Readable } from "node:stream";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { bearerSecret, isLoopback, projectScope, reaches } from "../../../src/http/auth.ts";
import { etagOf, parseIfMatch, requireMatch } from "../../../src/http/etag.ts";
import { parseIdempotencyKey, requestHash } from "../../../src/http/idempotency.ts";
import { readJsonBody } from "../../../src/http/json-body.ts";
import { checkJson, MAX_JSON_DEPTH } from "../../../src/http/json-scan.ts";
import { MalformedRequest, PROBLEMS, statusOf, toProblem } from "../../../src/http/problem.ts";
import {
  Id,
  IdOrName,
  Name,
  plainText,
  queryInteger,
  queryList,
  referenceOf,
} from "../../../src/http/schemas.ts";
import { violationsOf } from "../../../src/http/violations.ts";
import { DroverError, ERROR_CODES } from "../../../src/lib/errors.ts";
import { newId, type ProjectId, type TokenId } from "../../../src/lib/ids.ts";

describe("If-Match", () => {
  test("matches its own tag, in any list", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(), { minLength: 1, maxLength: 5 }), fc.nat(), (generations, now) => {
        const parsed = parseIfMatch(generations.map(etagOf).join(" , "));
        const match = (): void => {
          requireMatch(parsed, now);
        };
        if (generations.includes(now)) expect(match).not.toThrow();
        else expect(match).toThrow(expect.objectContaining({ code: "precondition_failed" }));
      }),
    );
  });

  test.each(["", ",", "3", '"3', "W/3", '"1" "2"', 'w/"3"', '"\u0000"'])("%j is refused", (header) => {
    expect(() => parseIfMatch(header)).toThrow(expect.objectContaining({ code: "invalid_request" }));
  });

  test("of any text is read or refused, never more", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        try {
          parseIfMatch(text);
        } catch (error) {
          expect(error).toBeInstanceOf(DroverError);
        }
      }),
    );
  });

  test("without a header, or with *, everything goes; weak tags match nothing", () => {
    expect(() => {
      requireMatch(null, 3);
    }).not.toThrow();
    expect(() => {
      requireMatch(parseIfMatch("*"), 3);
    }).not.toThrow();
    expect(() => {
      requireMatch(parseIfMatch('W/"3"'), 3);
    }).toThrow();
    expect(parseIfMatch('"a,b", "c"')).toEqual({ kind: "tags", tags: ["a,b", "c"] });
  });
});

describe("the JSON scanner", () => {
  test("lets everything pass that JSON.stringify writes", () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 6 }), (value) => {
        const text = JSON.stringify(value, null, 1);
        if (text.includes("__proto__")) return;
        expect(() => {
          checkJson(text);
        }).not.toThrow();
      }),
    );
  });

  test("finds a key that stands twice, wherever and however it is written", () => {
    fc.assert(
      fc.property(fc.string(), fc.jsonValue(), fc.nat(4), (key, value, depth) => {
        const literal = JSON.stringify(key);
        const escaped = `"${escapeAll(key)}"`;
        const text = `{${literal}:${JSON.stringify(value)}, ${escaped} : 1}`;
        expect(() => {
          checkJson(`${"[".repeat(depth)}${text}${"]".repeat(depth)}`);
        }).toThrow(MalformedRequest);
      }),
    );
  });

  test("does not mistake values for keys", () => {
    checkJson('{"a":"a","b":["a","a",{"a":1}],"c":"\\"a\\":"}');
  });

  test("bounds the depth", () => {
    const nested = (depth: number): string => "[".repeat(depth) + "]".repeat(depth);
    checkJson(nested(MAX_JSON_DEPTH));
    expect(() => {
      checkJson(nested(MAX_JSON_DEPTH + 1));
    }).toThrow("nested deeper");
  });
});

function escapeAll(text: string): string {
  const units = Array.from({ length: text.length }, (_, at) => text.charCodeAt(at));
  return units.map((unit) => `\\u${unit.toString(16).padStart(4, "0")}`).join("");
}

describe("a JSON body", () => {
  const limits = { maxBytes: 100, timeoutSeconds: 30 };

  test("is the same however it is cut into pieces", async () => {
    await fc.assert(
      fc.asyncProperty(fc.jsonValue({ maxDepth: 2 }), fc.integer({ min: 1, max: 7 }), async (value, size) => {
        const bytes = Buffer.from(JSON.stringify(value));
        if (bytes.length > limits.maxBytes || bytes.includes("__proto__")) return;
        const pieces = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
          bytes.subarray(index * size, (index + 1) * size),
        );
        expect(await readJsonBody(Readable.from(pieces), null, limits)).toEqual(JSON.parse(bytes.toString()));
      }),
    );
  });

  test("of nothing is undefined", async () => {
    expect(await readJsonBody(Readable.from([]), 0, limits)).toBeUndefined();
  });

  test("longer than allowed, said or not, is refused", async () => {
    const large = () => Readable.from([Buffer.alloc(60), Buffer.alloc(60)]);
    await expect(readJsonBody(large(), null, limits)).rejects.toMatchObject({ code: "payload_too_large" });
    await expect(readJsonBody(large(), 120, limits)).rejects.toMatchObject({ code: "payload_too_large" });
  });

  test("that breaks off is refused", async () => {
    await expect(readJsonBody(Readable.from([Buffer.from("{")]), 2, limits)).rejects.toThrow("ended before");
  });
});

describe("problems", () => {
  test("have a status and a title for every code", () => {
    for (const code of ERROR_CODES) {
      const problem = toProblem(new DroverError(code, "m", { details: { a: 1 } }), "r");
      expect(problem).toMatchObject({ code, detail: "m", requestId: "r", details: { a: 1 } });
      expect(problem.status).toBeGreaterThanOrEqual(400);
      expect(problem.status).toBe(PROBLEMS[code].status);
      expect(problem.title).toMatch(/\S/);
    }
  });

  test("keep what is not ours to themselves", () => {
    const problem = toProblem(new Error("secret"), "r");
    expect(problem).toMatchObject({ status: 500, code: "internal" });
    expect(JSON.stringify(problem)).not.toContain("secret");
    expect(statusOf("a string")).toBe(500);
  });
});

describe("violations", () => {
  const schema = z.strictObject({
    "a/b": z.int(),
    list: z.array(z.strictObject({ size: z.int() })),
    either: z.union([z.strictObject({ a: z.int(), b: z.int() }), z.strictObject({ a: z.int() })]).optional(),
  });

  function violations(value: unknown) {
    const { error } = schema.safeParse(value);
    return error === undefined ? [] : violationsOf(error, "body");
  }

  test("point to where it is wrong", () => {
    expect(violations({ list: [{ size: 1 }, { size: "x", more: 1 }] })).toEqual([
      { pointer: "/a~1b", message: "is required" },
      { pointer: "/list/1/size", message: expect.stringContaining("expected number") as string },
      { pointer: "/list/1/more", message: "is not a known member" },
    ]);
  });

  test("of a union speak of the branch that fits best", () => {
    expect(violations({ "a/b": 1, list: [], either: { a: "x" } })).toMatchObject([{ pointer: "/either/a" }]);
  });

  test("are bounded", () => {
    const many = Object.fromEntries(Array.from({ length: 500 }, (_, index) => [`k${index}`, 1]));
    expect(violations({ "a/b": 1, list: [], ...many })).toHaveLength(50);
  });
});

describe("the request's hash", () => {
  test("does not mind the order of members", () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (body) => {
        const turned = Object.fromEntries(Object.entries(body).reverse());
        expect(requestHash({}, turned)).toEqual(requestHash({}, body));
      }),
    );
  });

  test("differs where the body or the query does, but not for wait and project", () => {
    const hash = (query: Record<string, unknown>, body: unknown) =>
      Buffer.from(requestHash(query, body)).toString("hex");
    expect(hash({}, { a: 1 })).not.toBe(hash({}, { a: "1" }));
    expect(hash({}, { a: [] })).not.toBe(hash({}, { a: {} }));
    expect(hash({}, [["a", 1]])).not.toBe(hash({}, { a: 1 }));
    expect(hash({ force: true }, {})).not.toBe(hash({}, {}));
    expect(hash({ wait: 5, project: "p" }, {})).toBe(hash({}, {}));
  });

  test("keys must be visible and short", () => {
    expect(parseIdempotencyKey(undefined)).toBeNull();
    expect(parseIdempotencyKey("a-1")).toBe("a-1");
    for (const bad of ["", "a b", "ä", "x".repeat(256), ["a", "b"]]) {
      expect(() => parseIdempotencyKey(bad)).toThrow(expect.objectContaining({ code: "invalid_request" }));
    }
  });
});

describe("schemas", () => {
  test("names and ids are told apart", () => {
    const id = newId();
    expect(Name.safeParse(id).success).toBe(false);
    expect(Id.safeParse(id).success).toBe(true);
    expect(IdOrName.safeParse(id).success).toBe(true);
    expect(referenceOf(id)).toEqual({ id });
    expect(referenceOf("web-1")).toEqual({ name: "web-1" });
  });

  test.each(["", "-a", "a-", "A", "a_b", "a.b", "a/b", "..", "x".repeat(64), "a\n", "ä"])(
    "%j is no name",
    (name) => {
      expect(Name.safeParse(name).success).toBe(false);
      expect(IdOrName.safeParse(name).success).toBe(false);
    },
  );

  test("plain text holds no control characters", () => {
    const text = plainText({ max: 100 });
    expect(text.safeParse("Größe 2 – ok 🐑").success).toBe(true);
    for (const bad of ["\u0000", "a\nb", "\u001b[31m", "\u007f", "\u0085", "\ud800", ""]) {
      expect(text.safeParse(bad).success).toBe(false);
    }
  });

  test("integers of a query are digits only", () => {
    const schema = queryInteger({ min: -5, max: 60 });
    expect(schema.parse("-5")).toBe(-5);
    for (const bad of ["", " 1", "0x1", "1e1", "1.0", "61", "9".repeat(30), undefined]) {
      expect(schema.safeParse(bad).success).toBe(false);
    }
  });

  test("lists of a query are repeated or separated by commas", () => {
    const schema = queryList(z.enum(["a", "b"]));
    expect(schema.parse("a,b")).toEqual(["a", "b"]);
    expect(schema.parse(["a", "b"])).toEqual(["a", "b"]);
    for (const bad of ["", "a,", "c", []]) expect(schema.safeParse(bad).success).toBe(false);
  });
});

describe("access", () => {
  const a = newId<ProjectId>();
  const b = newId<ProjectId>();
  const caller = (projectIds: readonly ProjectId[] | "all") => ({
    tokenId: newId<TokenId>(),
    tokenName: "t",
    projectIds,
  });

  test("a bound token reaches its projects, and not what belongs to none", () => {
    expect(reaches(caller([a]), a)).toBe(true);
    expect(reaches(caller([a]), b)).toBe(false);
    expect(reaches(caller([a]), null)).toBe(false);
    expect(reaches(caller("all"), null)).toBe(true);
  });

  test("a list is never wider than the token", () => {
    expect(projectScope(caller("all"), null)).toBeNull();
    expect(projectScope(caller([a]), null)).toBe(a);
    expect(projectScope(caller([a, b]), { id: b, name: "b" })).toBe(b);
    for (const ids of [[], [a, b]]) expect(() => projectScope(caller(ids), null)).toThrow("Choose one");
  });

  test("a token stands after Bearer", () => {
    expect(bearerSecret("Bearer abc")).toBe("abc");
    expect(bearerSecret("bearer  abc")).toBe("abc");
    for (const bad of [undefined, "", "Bearer", "Basic abc", "Bearer a b", `Bearer ${"x".repeat(513)}`]) {
      expect(() => bearerSecret(bad)).toThrow(expect.objectContaining({ code: "unauthenticated" }));
    }
  });

  test("loopback is this machine only", () => {
    for (const address of ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
      expect(isLoopback(address)).toBe(true);
    for (const address of [undefined, "", "10.0.0.1", "::", "1270.0.0.1", "::ffff:10.0.0.1"]) {
      expect(isLoopback(address)).toBe(false);
    }
  });
});
