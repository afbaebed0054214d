import { readFile } from "node:fs/promises";
import { beforeAll, describe, expect, test } from "vitest";
import type { RegisteredRoute } from "../../../src/http/api.ts";
import { finishDocument, type OpenApiDocument } from "../../../src/http/openapi-document.ts";
import { mergeInputTwins, typeParts } from "../../../src/http/openapi-schemas.ts";
import { writeOpenApi } from "../../../src/openapi.ts";

interface Parameter {
  readonly name: string;
  readonly in: string;
  readonly required?: boolean;
  readonly description?: string;
}

interface Operation {
  readonly operationId: string;
  readonly summary: string;
  readonly tags: readonly string[];
  readonly parameters?: readonly Parameter[];
  readonly responses: Readonly<Record<string, { readonly description: string; readonly content?: object }>>;
}

interface Document {
  readonly openapi: string;
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, unknown>> };
}

let text: string;
let document: Document;
let operations: readonly (readonly [string, Operation])[];

beforeAll(async () => {
  text = await writeOpenApi();
  document = JSON.parse(text) as Document;
  operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(
      ([method, operation]) => [`${method.toUpperCase()} ${path}`, operation] as const,
    ),
  );
});

/** Every object in the document, with the way to it. */
function* nodesOf(node: unknown, way = "#"): Generator<readonly [string, Readonly<Record<string, unknown>>]> {
  if (typeof node !== "object" || node === null) return;
  if (!Array.isArray(node)) yield [way, node as Readonly<Record<string, unknown>>];
  for (const [key, child] of Object.entries(node)) yield* nodesOf(child, `${way}/${key}`);
}

describe("the document", () => {
  test("is of version 3.1 and the same each time", async () => {
    expect(document.openapi).toBe("3.1.0");
    expect(await writeOpenApi()).toBe(text);
  });

  test("is the committed one", async () => {
    const committed = await readFile(new URL("../../../openapi/openapi.json", import.meta.url), "utf8");
    expect(text === committed, "run npm run generate").toBe(true);
  });

  test("refers to nothing that is not there, and holds nothing that is not referred to", () => {
    const referred = new Set<string>();
    for (const [way, { $ref }] of nodesOf(document)) {
      if (typeof $ref !== "string") continue;
      const name = /^#\/components\/schemas\/(.+)$/.exec($ref)?.[1] ?? "";
      expect(document.components.schemas, way).toHaveProperty([name]);
      referred.add(name);
    }
    expect([...referred].sort()).toEqual(Object.keys(document.components.schemas).sort());
  });

  test("has no schema twice, as input and output", () => {
    const names = Object.keys(document.components.schemas);
    expect(names.filter((name) => name.endsWith("Input") && !names.includes(name.slice(0, -5)))).toEqual([]);
  });

  test("takes no member that it does not name", () => {
    const loose = [...nodesOf(document.components.schemas)]
      .filter(([, node]) => node["type"] === "object" && node["properties"] !== undefined)
      .filter(([, node]) => node["additionalProperties"] !== false)
      .map(([way]) => way);
    expect(loose).toEqual([]);
  });
});

describe("every operation", () => {
  test("has an id of its own of the form verbNoun, a summary and one tag", () => {
    const ids = operations.map(([, { operationId }]) => operationId);
    expect(ids).toEqual([...new Set(ids)]);
    for (const [name, { operationId, summary, tags }] of operations) {
      expect(operationId, name).toMatch(/^[a-z]+([A-Z][a-z]+)+$/);
      expect(summary, name).toMatch(/^[A-Z].*[^.]$/);
      expect(tags, name).toHaveLength(1);
    }
  });

  test("declares its path's parameters, and describes them", () => {
    for (const [name, { parameters = [] }] of operations) {
      const inPath = parameters.filter((parameter) => parameter.in === "path");
      const wanted = [...name.matchAll(/\{([^}]+)\}/g)].map(([, parameter]) => parameter);
      expect(inPath.map((parameter) => parameter.name).sort(), name).toEqual(wanted.sort());
      for (const parameter of inPath) expect(parameter, name).toMatchObject({ required: true });
    }
  });

  test("answers errors as problems, and says which", () => {
    for (const [name, { responses }] of operations) {
      const failures = Object.entries(responses).filter(([status]) => Number(status) >= 400);
      expect(
        failures.map(([status]) => status),
        name,
      ).toEqual(expect.arrayContaining(["422", "500"]));
      for (const [, { description, content }] of failures) {
        expect(description, name).toMatch(/^`[a-z_]+`: /);
        expect(Object.keys(content ?? {}), name).toEqual(["application/problem+json"]);
      }
    }
  });

  test("that changes something by POST or PATCH takes an Idempotency-Key", () => {
    for (const [name, { parameters = [] }] of operations) {
      if (!/^(POST|PATCH) /.test(name)) continue;
      expect(
        parameters.map((parameter) => parameter.name),
        name,
      ).toContain("Idempotency-Key");
    }
  });

  test("that answers 202 can be waited for", () => {
    for (const [name, { parameters = [], responses }] of operations) {
      if (!("202" in responses)) continue;
      expect(
        parameters.map((parameter) => parameter.name),
        name,
      ).toContain("wait");
    }
  });
});

describe("merging twins", () => {
  const reference = (id: string) => ({ $ref: `#/components/schemas/${id}` });

  test("keeps both where they differ, directly or further down", () => {
    const schemas = {
      A: { properties: { b: reference("B") } },
      AInput: { properties: { b: reference("BInput") } },
      B: { type: "string" },
      BInput: { type: "integer" },
      C: { type: "string" },
      CInput: { type: "string" },
      D: { type: "string" },
      DInput: { type: "number" },
      Unused: { type: "null" },
    };
    const paths = [
      reference("A"),
      reference("AInput"),
      reference("C"),
      reference("CInput"),
      reference("DInput"),
    ];
    const merged = mergeInputTwins({ paths, components: { schemas } });
    expect(Object.keys(merged.components.schemas)).toEqual(["A", "AInput", "B", "BInput", "C", "D"]);
    expect(merged.components.schemas["D"]).toEqual({ type: "number" });
    expect(merged.paths).toEqual([
      reference("A"),
      reference("AInput"),
      reference("C"),
      reference("C"),
      reference("D"),
    ]);
  });
});

describe("parts of a schema", () => {
  test("carry their type, where it stands beside them", () => {
    const whole = { type: "string", allOf: [{ pattern: "a" }, { pattern: "b" }] };
    const paths = { x: { schema: whole } };
    expect(typeParts({ paths })).toEqual({
      paths: {
        x: {
          schema: {
            allOf: [
              { type: "string", pattern: "a" },
              { type: "string", pattern: "b" },
            ],
          },
        },
      },
    });
  });
});

test("a route that was not collected is an error, not a gap", () => {
  const empty: OpenApiDocument = { paths: {}, components: { schemas: {} } };
  const route: RegisteredRoute = {
    method: "GET",
    path: "/v1/x",
    access: "public",
    operationId: "getX",
    tag: "Service",
    summary: "X",
    responses: {},
    body: null,
    upload: null,
    idempotent: false,
  };
  expect(() => finishDocument(empty, [route])).toThrow("/v1/x");
});
