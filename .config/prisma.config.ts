// Read by the Prisma CLI only, through prisma/prisma.mjs. The service applies migrations itself: src/db/migrate.ts.
import { defineConfig } from "prisma/config";

export default defineConfig({
  schema: "../prisma/schema.prisma",
  migrations: { path: "../prisma/migrations" },
  // `generate`, `validate` and `format` need no database.
  datasource: { url: process.env["DATABASE_URL"] ?? "" },
});
