/** What the collector writes twice is written once: a schema `X` and its twin `XInput`. Pure. */

interface WithSchemas {
  readonly paths: unknown;
  readonly components: { readonly schemas: Record<string, unknown> };
}

const PREFIX = "#/components/schemas/";
const TWIN = "Input";

/**
 * Leaves out schemas that nothing refers to, and names `XInput` `X` where X is not used or is the same. A schema
 * whose input differs from its output (a default, a transformation) keeps both names.
 */
export function mergeInputTwins<Document extends WithSchemas>(document: Document): Document {
  const { schemas } = document.components;
  const used = reachable(document.paths, schemas);
  const twins = new Set([...used].filter((id) => id.endsWith(TWIN) && baseOf(id) in schemas));
  const merged = mergeable(twins, used, schemas);
  const rename = (reference: string): string => {
    const id = reference.slice(PREFIX.length);
    return merged.has(id) ? PREFIX + baseOf(id) : reference;
  };
  const kept: [string, unknown][] = [...used].map((id) => [
    merged.has(id) ? baseOf(id) : id,
    mapReferences(schemas[id], rename),
  ]);
  const sorted = Object.fromEntries(kept.sort(([a], [b]) => (a < b ? -1 : 1)));
  return {
    ...document,
    paths: mapReferences(document.paths, rename),
    components: { ...document.components, schemas: sorted },
  };
}

function baseOf(id: string): string {
  return id.slice(0, -TWIN.length);
}

/** The twins that can take their base's name: alone in use, or the same once the others are merged. */
function mergeable(
  twins: ReadonlySet<string>,
  used: ReadonlySet<string>,
  schemas: Readonly<Record<string, unknown>>,
): ReadonlySet<string> {
  let merged = twins;
  for (;;) {
    const rename = (reference: string): string => {
      const id = reference.slice(PREFIX.length);
      return merged.has(id) ? PREFIX + baseOf(id) : reference;
    };
    const text = (id: string): string => JSON.stringify(mapReferences(schemas[id], rename));
    const left = new Set([...merged].filter((id) => !used.has(baseOf(id)) || text(id) === text(baseOf(id))));
    if (left.size === merged.size) return left;
    merged = left;
  }
}

function reachable(root: unknown, schemas: Readonly<Record<string, unknown>>): ReadonlySet<string> {
  const found = new Set<string>();
  const visit = (node: unknown): void => {
    mapReferences(node, (reference) => {
      const id = reference.slice(PREFIX.length);
      if (!found.has(id)) {
        found.add(id);
        visit(schemas[id]);
      }
      return reference;
    });
  };
  visit(root);
  return found;
}

/** Every integer is said to be a safe one, which tells nobody anything. */
function isTelling([key, value]: readonly [string, unknown]): boolean {
  const bound =
    key === "minimum" ? Number.MIN_SAFE_INTEGER : key === "maximum" ? Number.MAX_SAFE_INTEGER : null;
  return bound === null || value !== bound;
}

/**
 * A copy in which `{type: "string", allOf: [{pattern}, {pattern}]}`, as several patterns are collected, is written
 * with the type in each part: generators of clients lose it otherwise.
 */
export function typeParts<Node>(node: Node): Node {
  return typedNode(node) as Node;
}

function typedNode(node: unknown): unknown {
  if (Array.isArray(node)) return node.map(typedNode);
  if (typeof node !== "object" || node === null) return node;
  const entries = Object.entries(node).map(([key, child]): [string, unknown] => [key, typedNode(child)]);
  const { type, allOf, ...rest } = Object.fromEntries(entries);
  if (type === undefined || !Array.isArray(allOf)) return Object.fromEntries(entries);
  return { ...rest, allOf: allOf.map((part: unknown) => ({ type, ...(part as object) })) };
}

/** A copy in which every reference to a schema went through `change`. */
function mapReferences(node: unknown, change: (reference: string) => string): unknown {
  if (Array.isArray(node)) return node.map((child) => mapReferences(child, change));
  if (typeof node !== "object" || node === null) return node;
  const entries = Object.entries(node)
    .filter(isTelling)
    .map(([key, child]): [string, unknown] => {
      const isReference = key === "$ref" && typeof child === "string" && child.startsWith(PREFIX);
      return [key, isReference ? change(child) : mapReferences(child, change)];
    });
  return Object.fromEntries(entries);
}
