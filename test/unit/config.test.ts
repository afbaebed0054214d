import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { ConfigError, maskedConfig, readConfig } from "../../src/config.ts";

const KEY = Buffer.alloc(32, 7).toString("base64");

describe("the configuration", () => {
  test("has a default for everything", () => {
    const dataDir =
      process.getuid?.() === 0 ? "/var/lib/drover" : join(homedir(), ".local", "share", "drover");
    expect(readConfig({})).toEqual({
      databaseUrl: null,
      listen: { host: "127.0.0.1", port: 7420 },
      dataDir,
      roles: { api: true, worker: true },
      adminToken: null,
      secretKey: null,
      tls: null,
      publicUrl: null,
      logLevel: "info",
      imageImportAllow: [],
      maxImageGib: 64,
      imageBuildsPerWorker: 1,
      hostImageCacheGib: 100,
      inventorySeconds: 30,
      volumeScanSeconds: 600,
      orphanGraceSeconds: 604_800,
      leaseSeconds: 10,
      drainSeconds: 20,
      operationsPerHost: 8,
      operationsPerWorker: 256,
      retentionDays: 90,
    });
  });

  test("takes every variable", () => {
    const config = readConfig({
      DATABASE_URL: "postgresql://me:secret@db/drover",
      DROVER_LISTEN: "[::1]:0",
      DROVER_DATA_DIR: "data",
      DROVER_ROLES: "worker",
      DROVER_ADMIN_TOKEN: "a-token-of-some-length",
      DROVER_SECRET_KEY: KEY,
      DROVER_TLS_CERT: "/c.pem",
      DROVER_TLS_KEY: "/k.pem",
      DROVER_PUBLIC_URL: "https://drover.example/api/",
      DROVER_LOG_LEVEL: "debug",
      DROVER_IMAGE_IMPORT_ALLOW: "10.0.0.0/8, mirror.example",
      DROVER_MAX_IMAGE_GIB: "5",
      DROVER_IMAGE_BUILDS_PER_WORKER: "2",
      DROVER_HOST_IMAGE_CACHE_GIB: "0.5",
      DROVER_INVENTORY_SECONDS: "7",
      DROVER_LEASE_SECONDS: "3",
      DROVER_DRAIN_SECONDS: "9",
      DROVER_OPERATIONS_PER_HOST: "4",
      DROVER_OPERATIONS_PER_WORKER: "64",
      DROVER_RETENTION_DAYS: "11",
      DROVER_VOLUME_SCAN_SECONDS: "120",
      DROVER_ORPHAN_GRACE_SECONDS: "0",
    });
    expect(config).toEqual({
      databaseUrl: "postgresql://me:secret@db/drover",
      listen: { host: "::1", port: 0 },
      dataDir: resolve("data"),
      roles: { api: false, worker: true },
      adminToken: "a-token-of-some-length",
      secretKey: KEY,
      tls: { certPath: "/c.pem", keyPath: "/k.pem" },
      publicUrl: "https://drover.example/api",
      logLevel: "debug",
      imageImportAllow: ["10.0.0.0/8", "mirror.example"],
      maxImageGib: 5,
      imageBuildsPerWorker: 2,
      hostImageCacheGib: 0.5,
      inventorySeconds: 7,
      volumeScanSeconds: 120,
      orphanGraceSeconds: 0,
      leaseSeconds: 3,
      drainSeconds: 9,
      operationsPerHost: 4,
      operationsPerWorker: 64,
      retentionDays: 11,
    });
  });

  test("takes an empty variable as not set, that of the default directory too", () => {
    const empty = { DATABASE_URL: "", DROVER_LISTEN: "", DROVER_ROLES: "", XDG_DATA_HOME: "" };
    expect(readConfig(empty)).toEqual(readConfig({}));
  });

  test.each([
    ["DATABASE_URL", "mysql://x"],
    ["DROVER_LISTEN", "7420"],
    ["DROVER_LISTEN", "127.0.0.1:70000"],
    ["DROVER_LISTEN", "::1:7420"],
    ["DROVER_ROLES", "api,boss"],
    ["DROVER_ADMIN_TOKEN", "short"],
    ["DROVER_SECRET_KEY", "bm90IGEga2V5"],
    ["DROVER_PUBLIC_URL", "drover.example"],
    ["DROVER_PUBLIC_URL", "https://drover.example/?a=b"],
    ["DROVER_LOG_LEVEL", "loud"],
    ["DROVER_MAX_IMAGE_GIB", "0"],
    ["DROVER_IMAGE_BUILDS_PER_WORKER", "0"],
    ["DROVER_HOST_IMAGE_CACHE_GIB", "-1"],
    ["DROVER_MAX_IMAGE_GIB", "many"],
    ["DROVER_INVENTORY_SECONDS", "0"],
    ["DROVER_LEASE_SECONDS", "2"],
    ["DROVER_DRAIN_SECONDS", "1.5"],
    ["DROVER_OPERATIONS_PER_HOST", "0"],
    ["DROVER_OPERATIONS_PER_WORKER", "1e9"],
    ["DROVER_RETENTION_DAYS", "-1"],
  ])("refuses a wrong %s (%s) in one line that names it and not the value of a secret", (name, value) => {
    const read = () => readConfig({ [name]: value });
    expect(read).toThrow(ConfigError);
    expect(read).toThrow(new RegExp(`^${name}: [^\\n]+$`));
    if (/TOKEN|KEY/.test(name)) expect(read).not.toThrow(new RegExp(value));
  });

  test.each([
    [{ DROVER_TLS_CERT: "/c.pem" }, "DROVER_TLS_KEY"],
    [{ DROVER_TLS_KEY: "/k.pem" }, "DROVER_TLS_CERT"],
  ])("wants both halves of TLS: %j", (environment, missing) => {
    expect(() => readConfig(environment)).toThrow(new RegExp(`^${missing}: `));
  });
});

describe("the configuration as it is printed", () => {
  test("holds no secret", () => {
    const config = readConfig({
      DATABASE_URL: "postgresql://me:p%40ss@db:5432/drover?password=hunter2&sslmode=require",
      DROVER_ADMIN_TOKEN: "a-token-of-some-length",
      DROVER_SECRET_KEY: KEY,
    });
    const printed = JSON.stringify(maskedConfig(config));
    for (const secret of ["p%40ss", "hunter2", "a-token-of", KEY]) expect(printed).not.toContain(secret);
    expect(maskedConfig(config)).toMatchObject({ databaseUrl: "postgresql://***@db:5432/drover?***" });
  });

  test("masks a URL that cannot be read as a whole, and says where the database is embedded", () => {
    const strange = { ...readConfig({}), databaseUrl: "postgres://me:a/b:c@[" };
    expect(maskedConfig(strange)).toMatchObject({ databaseUrl: "***" });
    expect(maskedConfig(readConfig({}))).toMatchObject({ databaseUrl: "embedded", adminToken: null });
  });
});
