import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { z } from "zod";

/** Everything that can be set from outside, read once at the start. This file is the only reader of the environment. */
export interface Config {
  /** Null: the embedded Postgres below the data directory. */
  readonly databaseUrl: string | null;
  readonly listen: { readonly host: string; readonly port: number };
  readonly dataDir: string;
  readonly roles: { readonly api: boolean; readonly worker: boolean };
  readonly adminToken: string | null;
  readonly secretKey: string | null;
  readonly tls: { readonly certPath: string; readonly keyPath: string } | null;
  /** Where clients reach the API, where a proxy stands in between; without a slash at its end. */
  readonly publicUrl: string | null;
  readonly logLevel: LogLevel;
  readonly imageImportAllow: readonly string[];
  readonly maxImageGib: number;
  readonly imageBuildsPerWorker: number;
  /** How much of a pool copies of images may take that no volume needs. */
  readonly hostImageCacheGib: number;
  readonly inventorySeconds: number;
  readonly volumeScanSeconds: number;
  readonly orphanGraceSeconds: number;
  readonly leaseSeconds: number;
  readonly drainSeconds: number;
  readonly operationsPerHost: number;
  readonly operationsPerWorker: number;
  readonly retentionDays: number;
}

const LOG_LEVELS = ["fatal", "error", "warn", "info", "debug", "trace", "silent"] as const;
type LogLevel = (typeof LOG_LEVELS)[number];

const listen = z.string().transform((text, context) => {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:\s]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) {
    context.addIssue({
      code: "custom",
      message: "give it as address:port, such as 127.0.0.1:7420 or [::1]:7420",
    });
    return z.NEVER;
  }
  return { host: match[1] ?? match[2] ?? "", port };
});

const roles = z.string().transform((text, context) => {
  const names = text.split(",").map((name) => name.trim());
  if (names.some((name) => name !== "api" && name !== "worker")) {
    context.addIssue({ code: "custom", message: "give api, worker or api,worker" });
    return z.NEVER;
  }
  return { api: names.includes("api"), worker: names.includes("worker") };
});

const seconds = (max: number) => z.coerce.number().int().min(1).max(max);

const Environment = z.object({
  DATABASE_URL: z
    .string()
    .regex(/^postgres(ql)?:\/\//, "give a URL that begins with postgresql://")
    .optional(),
  DROVER_LISTEN: listen.prefault("127.0.0.1:7420"),
  DROVER_DATA_DIR: z.string().min(1).optional(),
  DROVER_ROLES: roles.prefault("api,worker"),
  DROVER_ADMIN_TOKEN: z.string().min(20, "give at least 20 characters").max(200).optional(),
  DROVER_SECRET_KEY: z
    .string()
    .regex(/^[A-Za-z0-9+/]{43}=$/, "give 32 bytes in base64, as `openssl rand -base64 32` prints them")
    .optional(),
  DROVER_TLS_CERT: z.string().min(1).optional(),
  DROVER_TLS_KEY: z.string().min(1).optional(),
  DROVER_PUBLIC_URL: z
    .string()
    .regex(/^https?:\/\/[^/?#@\s]+(\/[^?#\s]*)?$/, "give a URL such as https://drover.example")
    .transform((text) => text.replace(/\/+$/, ""))
    .optional(),
  DROVER_LOG_LEVEL: z.enum(LOG_LEVELS).default("info"),
  DROVER_IMAGE_IMPORT_ALLOW: z
    .string()
    .default("")
    .transform((text) =>
      text
        .split(",")
        .map((part) => part.trim())
        .filter((part) => part !== ""),
    ),
  DROVER_MAX_IMAGE_GIB: z.coerce.number().int().min(1).max(65_536).default(64),
  DROVER_IMAGE_BUILDS_PER_WORKER: z.coerce.number().int().min(1).max(64).default(1),
  DROVER_HOST_IMAGE_CACHE_GIB: z.coerce.number().min(0).max(1_048_576).default(100),
  DROVER_INVENTORY_SECONDS: seconds(86_400).default(30),
  DROVER_VOLUME_SCAN_SECONDS: seconds(86_400).default(600),
  DROVER_ORPHAN_GRACE_SECONDS: z.coerce.number().int().min(0).max(31_536_000).default(604_800),
  DROVER_LEASE_SECONDS: z.coerce.number().int().min(3).max(300).default(10),
  DROVER_DRAIN_SECONDS: seconds(3_600).default(20),
  DROVER_OPERATIONS_PER_HOST: z.coerce.number().int().min(1).max(1_000).default(8),
  DROVER_OPERATIONS_PER_WORKER: z.coerce.number().int().min(1).max(10_000).default(256),
  DROVER_RETENTION_DAYS: z.coerce.number().int().min(1).max(3_650).default(90),
});

/** A wrong value: the message is one line that names the variable. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

/**
 * Reads the configuration from environment variables. An empty variable counts as not set.
 * Throws ConfigError with one line that names the variable and what it wants.
 */
export function readConfig(environment: Readonly<Record<string, string | undefined>>): Config {
  const given = Object.fromEntries(Object.entries(environment).filter(([, value]) => value !== ""));
  const parsed = Environment.safeParse(given);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new ConfigError(`${issue?.path.join(".") ?? "environment"}: ${issue?.message ?? "is wrong"}`);
  }
  const env = parsed.data;
  const tls = tlsOf(env.DROVER_TLS_CERT, env.DROVER_TLS_KEY);
  return {
    databaseUrl: env.DATABASE_URL ?? null,
    listen: env.DROVER_LISTEN,
    dataDir: resolve(env.DROVER_DATA_DIR ?? defaultDataDir(given)),
    roles: env.DROVER_ROLES,
    adminToken: env.DROVER_ADMIN_TOKEN ?? null,
    secretKey: env.DROVER_SECRET_KEY ?? null,
    tls,
    publicUrl: env.DROVER_PUBLIC_URL ?? null,
    logLevel: env.DROVER_LOG_LEVEL,
    imageImportAllow: env.DROVER_IMAGE_IMPORT_ALLOW,
    maxImageGib: env.DROVER_MAX_IMAGE_GIB,
    imageBuildsPerWorker: env.DROVER_IMAGE_BUILDS_PER_WORKER,
    hostImageCacheGib: env.DROVER_HOST_IMAGE_CACHE_GIB,
    inventorySeconds: env.DROVER_INVENTORY_SECONDS,
    volumeScanSeconds: env.DROVER_VOLUME_SCAN_SECONDS,
    orphanGraceSeconds: env.DROVER_ORPHAN_GRACE_SECONDS,
    leaseSeconds: env.DROVER_LEASE_SECONDS,
    drainSeconds: env.DROVER_DRAIN_SECONDS,
    operationsPerHost: env.DROVER_OPERATIONS_PER_HOST,
    operationsPerWorker: env.DROVER_OPERATIONS_PER_WORKER,
    retentionDays: env.DROVER_RETENTION_DAYS,
  };
}

function tlsOf(certPath: string | undefined, keyPath: string | undefined): Config["tls"] {
  if (certPath !== undefined && keyPath !== undefined) return { certPath, keyPath };
  if (certPath === undefined && keyPath === undefined) return null;
  const missing = certPath === undefined ? "DROVER_TLS_CERT" : "DROVER_TLS_KEY";
  throw new ConfigError(`${missing}: TLS needs both DROVER_TLS_CERT and DROVER_TLS_KEY, or neither`);
}

function defaultDataDir(environment: Readonly<Record<string, string | undefined>>): string {
  if (process.getuid?.() === 0) return "/var/lib/drover";
  return join(environment["XDG_DATA_HOME"] ?? join(homedir(), ".local", "share"), "drover");
}

/** The configuration as it is printed at the start: secrets masked. */
export function maskedConfig(config: Config): Record<string, unknown> {
  return {
    ...config,
    databaseUrl: config.databaseUrl === null ? "embedded" : maskedUrl(config.databaseUrl),
    adminToken: config.adminToken === null ? null : "***",
    secretKey: config.secretKey === null ? null : "***",
  };
}

/** The URL without user, password and parameters, any of which may be a secret. */
function maskedUrl(text: string): string {
  if (!URL.canParse(text)) return "***";
  const { protocol, host, pathname, username, search } = new URL(text);
  return `${protocol}//${username === "" ? "" : "***@"}${host}${pathname}${search === "" ? "" : "?***"}`;
}
