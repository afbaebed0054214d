#!/usr/bin/env node
import { pino } from "pino";
import { ConfigError, maskedConfig, readConfig } from "./config.ts";
import { messageOf } from "./lib/errors.ts";
import { StartupError } from "./lib/startup-error.ts";
import { type Service, startService } from "./service.ts";

/** `drover serve`: reads the configuration, starts the service, and drains it on SIGTERM and SIGINT. */

// Exit statuses of sysexits.h: wrong usage or configuration; cannot start as things are.
const EX_CONFIG = 78;
const EX_UNAVAILABLE = 69;

async function main(): Promise<void> {
  const [command = "serve", ...rest] = process.argv.slice(2);
  if (command !== "serve" || rest.length > 0) {
    fail(EX_CONFIG, "usage: drover serve");
    return;
  }
  const config = readConfig(process.env);
  const logger = pino({ level: config.logLevel, base: null }, pino.destination({ fd: 2, sync: true }));
  logger.info({ config: maskedConfig(config) }, "starting");
  // Heard from the first moment on: what was started is ended again, whenever the signal comes.
  const signal = firstSignal();
  const service = await startService({ config, logger });
  announce(service);
  await signal;
  logger.info("draining");
  await service.stop();
  logger.info("stopped");
}

/** On standard output, where people and scripts look; the log is on standard error. */
function announce({ url, newAdminToken }: Service): void {
  if (newAdminToken !== null) {
    process.stdout.write(`A first token was made. It is shown this once only:\n  ${newAdminToken}\n`);
  }
  process.stdout.write(url === null ? "Drover works.\n" : `Drover listens on ${url}\n`);
}

/** Resolves at the first SIGTERM or SIGINT. A second one means: now. */
function firstSignal(): Promise<void> {
  let isSecond = false;
  return new Promise((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const)
      process.on(signal, () => {
        if (isSecond) process.exit(1);
        isSecond = true;
        resolve();
      });
  });
}

function fail(status: number, message: string): void {
  process.stderr.write(`${message}\n`);
  process.exitCode = status;
}

/** A path that cannot be read or written, for one: its message says which, and no stack says more. */
function isOfSystem(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && "syscall" in error && "code" in error;
}

main().catch((error: unknown) => {
  if (error instanceof ConfigError) fail(EX_CONFIG, error.message);
  else if (error instanceof StartupError) fail(EX_UNAVAILABLE, error.message);
  else if (isOfSystem(error)) fail(EX_UNAVAILABLE, `Drover cannot start: ${error.message}`);
  else fail(1, error instanceof Error ? (error.stack ?? error.message) : messageOf(error));
});
