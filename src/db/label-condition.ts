import { Prisma } from "./generated/client.ts";

/** One condition of a label selector; the same shape as in http/labels.ts. */
export type LabelRequirement =
  | { readonly kind: "in" | "notIn"; readonly key: string; readonly values: readonly string[] }
  | { readonly kind: "exists" | "absent"; readonly key: string };

/**
 * A label selector as a condition on a jsonb column such as `Prisma.sql\`v.labels\``; all requirements must hold.
 * Equality is written as containment, which the columns' GIN indexes answer.
 */
export function labelCondition(requirements: readonly LabelRequirement[], column: Prisma.Sql): Prisma.Sql {
  if (requirements.length === 0) return Prisma.sql`true`;
  return Prisma.join(
    requirements.map((requirement) => conditionOf(requirement, column)),
    " AND ",
  );
}

function conditionOf(requirement: LabelRequirement, column: Prisma.Sql): Prisma.Sql {
  switch (requirement.kind) {
    case "in":
      return anyOf(requirement.key, requirement.values, column);
    case "notIn":
      return Prisma.sql`NOT ${anyOf(requirement.key, requirement.values, column)}`;
    case "exists":
      return Prisma.sql`jsonb_exists(${column}, ${requirement.key})`;
    case "absent":
      return Prisma.sql`NOT jsonb_exists(${column}, ${requirement.key})`;
  }
}

function anyOf(key: string, values: readonly string[], column: Prisma.Sql): Prisma.Sql {
  if (values.length === 0) return Prisma.sql`false`;
  const each = values.map((value) => Prisma.sql`${column} @> ${JSON.stringify({ [key]: value })}::jsonb`);
  return Prisma.sql`(${Prisma.join(each, " OR ")})`;
}
