import { readFile } from "node:fs/promises";

/** The committed OpenAPI document, read into what the fuzz needs of it. */

export interface Schema {
  readonly $ref?: string;
  readonly type?: string | readonly string[];
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly anyOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
  readonly allOf?: readonly Schema[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: boolean | Schema;
  readonly items?: Schema;
  readonly pattern?: string;
  readonly format?: string;
  readonly examples?: readonly unknown[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minItems?: number;
  readonly maxItems?: number;
}

export interface Parameter {
  readonly name: string;
  readonly in: "path" | "query" | "header";
  readonly required?: boolean;
  readonly schema: Schema;
}

interface Content {
  readonly content?: Readonly<Record<string, { readonly schema?: Schema }>>;
}

interface Operation {
  readonly operationId: string;
  readonly parameters?: readonly Parameter[];
  readonly requestBody?: Content;
  readonly responses: Readonly<Record<string, Content>>;
}

export interface ApiDocument {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, Schema>> };
}

/** One method of one path. */
export interface Route {
  readonly operationId: string;
  readonly method: string;
  /** With parameters in braces: `/v1/vms/{vm}`. */
  readonly path: string;
  readonly parameters: readonly Parameter[];
  /** Content types that it takes with their schemas; none: it takes no body. */
  readonly body: readonly (readonly [contentType: string, schema: Schema])[];
  /** The media types that each status is documented to have. */
  readonly statuses: ReadonlyMap<number, readonly string[]>;
}

export async function readDocument(): Promise<ApiDocument> {
  const text = await readFile(new URL("../../openapi/openapi.json", import.meta.url), "utf8");
  return JSON.parse(text) as ApiDocument;
}

export function routesOf(document: ApiDocument): readonly Route[] {
  return Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({
      operationId: operation.operationId,
      method: method.toUpperCase(),
      path,
      parameters: operation.parameters ?? [],
      body: Object.entries(operation.requestBody?.content ?? {}).map(
        ([type, { schema }]) => [type, schema ?? {}] as const,
      ),
      statuses: new Map(
        Object.entries(operation.responses).map(([status, { content }]) => [
          Number(status),
          Object.keys(content ?? {}),
        ]),
      ),
    })),
  );
}

/** Follows a reference to its schema. */
export function resolve(document: ApiDocument, schema: Schema): Schema {
  if (schema.$ref === undefined) return schema;
  const name = schema.$ref.slice(schema.$ref.lastIndexOf("/") + 1);
  return document.components.schemas[name] ?? {};
}
