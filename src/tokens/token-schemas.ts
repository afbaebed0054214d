import { z } from "zod";
import { Id, IdOrName, Name, Timestamp, TimestampInput } from "../http/schemas.ts";

export const TokenSchema = z
  .strictObject({
    id: Id,
    name: Name.meta({ description: "Unique among the tokens that are not revoked." }),
    project: z
      .string()
      .nullable()
      .meta({ description: "Name of the project it is bound to; null reaches everything." }),
    createdAt: Timestamp,
    expiresAt: Timestamp.nullable(),
    lastUsedAt: Timestamp.nullable().meta({ description: "To the minute." }),
  })
  .meta({ id: "Token", description: "A key to the API. Its secret is shown once, when it is created." });

export type Token = z.output<typeof TokenSchema>;

export const CreateTokenBody = z
  .strictObject({
    name: Name,
    project: IdOrName.optional().meta({
      description: "Binds the token to one project; without, it reaches everything.",
    }),
    expiresAt: TimestampInput.optional().meta({
      description: "When it stops working; without, only when revoked.",
    }),
  })
  .meta({
    id: "CreateToken",
    examples: [{ name: "ci", project: "default", expiresAt: "2030-01-01T00:00:00Z" }],
  });

export type CreateToken = z.output<typeof CreateTokenBody>;

export const TokenCreated = z
  .strictObject({
    token: TokenSchema,
    secret: z
      .string()
      .optional()
      .meta({
        description:
          "What to send as `Authorization: Bearer <secret>`. Shown once: a repeated request does not get it.",
        examples: ["drover_3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
      }),
  })
  .meta({ id: "TokenCreated" });
