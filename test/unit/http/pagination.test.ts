import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import {
  decodePageToken,
  encodePageToken,
  orderByQuery,
  type PageBinding,
  type PageKey,
  pageQuery,
  pageWindow,
  parseOrderBy,
  requireTimeKey,
  toPage,
} from "../../../src/http/pagination.ts";

const BINDING: PageBinding = { list: "vms", orderBy: "name", filters: { power: "running" } };

const anyKey: fc.Arbitrary<PageKey> = fc.record({
  value: fc.oneof(fc.string(), fc.integer(), fc.constant(null)),
  id: fc.uuid(),
});

describe("a page token", () => {
  test("gives back the key that it was made of", () => {
    fc.assert(
      fc.property(anyKey, (key) => {
        expect(decodePageToken(BINDING, encodePageToken(BINDING, key))).toEqual(key);
      }),
    );
  });

  test("is not taken by another list, order or filter", () => {
    const token = encodePageToken(BINDING, { value: "a", id: "b" });
    const others: PageBinding[] = [
      { ...BINDING, list: "hosts" },
      { ...BINDING, orderBy: "-name" },
      { ...BINDING, filters: {} },
      { ...BINDING, filters: { power: "off" } },
    ];
    for (const other of others) expect(() => decodePageToken(other, token)).toThrow("another list");
  });

  test("does not mind the order of filters, nor those that are not given", () => {
    const one = { ...BINDING, filters: { a: 1, b: [2], c: undefined } };
    const token = encodePageToken(one, { value: 1, id: "x" });
    expect(decodePageToken({ ...BINDING, filters: { b: [2], a: 1 } }, token)).toEqual({ value: 1, id: "x" });
  });

  test("of any other text is refused, never more", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.base64String()), (text) => {
        expect(() => decodePageToken(BINDING, text)).toThrow(
          expect.objectContaining({ code: "invalid_request" }),
        );
      }),
    );
  });

  test("that was changed in one place is refused or another key of the same list", () => {
    const token = encodePageToken(BINDING, { value: "web-1", id: "b" });
    fc.assert(
      fc.property(fc.nat(token.length - 1), fc.constantFrom(...Array.from("AZaz09-_.")), (at, char) => {
        const changed = token.slice(0, at) + char + token.slice(at + 1);
        try {
          decodePageToken(BINDING, changed);
        } catch (error) {
          expect(error).toMatchObject({ code: "invalid_request" });
        }
      }),
    );
  });

  test("for a time must hold a time and an id", () => {
    const request = (key: PageKey) => ({ pageSize: 1, pageToken: encodePageToken(BINDING, key) });
    const id = "0199f3a2-7c11-7e02-9f1b-2b7d1a3c5e77";
    const good = { value: "2026-01-31T12:00:00.000Z", id };
    expect(requireTimeKey(pageWindow(BINDING, request(good))).after).toEqual(good);
    for (const bad of [
      { ...good, id: "x" },
      { ...good, value: "2026-13-31T12:00:00.000Z" },
      { ...good, value: 7 },
    ]) {
      expect(() => requireTimeKey(pageWindow(BINDING, request(bad)))).toThrow("not one of ours");
    }
  });
});

describe("pages", () => {
  test("of any size show every row once, in order", () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.integer(), { maxLength: 40 }),
        fc.integer({ min: 1, max: 10 }),
        (numbers, pageSize) => {
          const rows = numbers.sort((a, b) => a - b).map((value) => ({ value, id: String(value) }));
          const seen: number[] = [];
          let pageToken: string | undefined;
          do {
            const request = { pageSize, pageToken };
            const { after, limit } = pageWindow(BINDING, request);
            const fetched = rows
              .filter(({ value }) => after === null || value > Number(after.value))
              .slice(0, limit);
            const page = toPage(
              BINDING,
              request,
              fetched,
              (row) => row,
              ({ value }) => value,
            );
            expect(page.items.length).toBeLessThanOrEqual(pageSize);
            if (page.nextPageToken !== undefined) expect(page.items).toHaveLength(pageSize);
            seen.push(...page.items);
            pageToken = page.nextPageToken;
          } while (pageToken !== undefined);
          expect(seen).toEqual(rows.map(({ value }) => value));
        },
      ),
    );
  });
});

describe("the query", () => {
  const schema = z.strictObject({ ...pageQuery, orderBy: orderByQuery(["name", "createdAt"], "-createdAt") });

  test.each([
    [{}, 50],
    [{ pageSize: "0" }, 1],
    [{ pageSize: "-5" }, 1],
    [{ pageSize: "7" }, 7],
    [{ pageSize: "100000" }, 500],
  ])("%j is a page of %i", (query, pageSize) => {
    expect(schema.parse(query)).toMatchObject({ pageSize, orderBy: "-createdAt" });
  });

  test.each([
    { pageSize: "x" },
    { pageSize: "" },
    { pageSize: "1e3" },
    { pageSize: ["1", "2"] },
    { orderBy: "spec" },
  ])("%j is refused", (query) => {
    expect(schema.safeParse(query).success).toBe(false);
  });

  test("takes an order apart", () => {
    expect(parseOrderBy<"name">("-name")).toEqual({ field: "name", direction: "desc" });
    expect(parseOrderBy<"name">("name")).toEqual({ field: "name", direction: "asc" });
  });
});
