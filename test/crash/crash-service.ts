import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import type { Hold } from "./gate.ts";

export interface ToChild {
  readonly holds: readonly Hold[];
}
export type FromChild =
  | { readonly kind: "ready"; readonly url: string }
  | { readonly kind: "armed" }
  | { readonly kind: "held"; readonly id: string; readonly operationId: string | null };

/** A service in a process of its own that holds operations where it is told to. */
export interface CrashService {
  readonly url: string;
  /** From now on the next operations of these kinds are held, each at its point. */
  arm(holds: readonly Hold[]): Promise<void>;
  /** What stands at its point: the hold's id, and the operation. */
  readonly held: ReadonlyMap<string, string | null>;
  /** SIGKILL; resolves when the process is gone. */
  kill(): Promise<void>;
}

export const TOKEN = "a-token-of-the-crash-matrix";

/** Starts it, and waits until it listens. Its log is appended to `service.log` in the data directory. */
export async function startCrashService(
  dataDir: string,
  environment: Readonly<Record<string, string>>,
): Promise<CrashService> {
  const log = openSync(join(dataDir, "service.log"), "a");
  const child = spawn(process.execPath, [new URL("crash-child.ts", import.meta.url).pathname], {
    env: {
      PATH: process.env["PATH"],
      // Hundreds of modules, the same each time: this halves the start.
      NODE_COMPILE_CACHE: join(dataDir, "compile-cache"),
      DROVER_DATA_DIR: dataDir,
      DROVER_LISTEN: "127.0.0.1:0",
      DROVER_ADMIN_TOKEN: TOKEN,
      DROVER_LOG_LEVEL: "warn",
      ...environment,
    },
    stdio: ["ignore", log, log, "ipc"],
  });
  closeSync(log);
  const exited = new Promise<void>((resolve) => {
    child.once("exit", () => {
      resolve();
    });
  });
  const held = new Map<string, string | null>();
  child.on("message", (message: FromChild) => {
    if (message.kind === "held") held.set(message.id, message.operationId);
  });
  const { url } = await next(child, "ready");
  return {
    ...{ url, held },
    async arm(holds) {
      const armed = next(child, "armed");
      child.send({ holds } satisfies ToChild);
      await armed;
    },
    async kill() {
      child.kill("SIGKILL");
      await exited;
    },
  };
}

/** The next message of this kind; rejects when the process ends before. */
function next<Kind extends FromChild["kind"]>(
  child: ChildProcess,
  kind: Kind,
): Promise<Extract<FromChild, { kind: Kind }>> {
  return new Promise((resolve, reject) => {
    const onMessage = (message: FromChild): void => {
      if (message.kind !== kind) return;
      end();
      resolve(message as Extract<FromChild, { kind: Kind }>);
    };
    const onExit = (status: number | null): void => {
      end();
      reject(new Error(`the service ended with status ${status ?? "of a signal"} before it was ${kind}`));
    };
    const end = (): void => {
      child.off("message", onMessage);
      child.off("exit", onExit);
    };
    child.on("message", onMessage);
    child.on("exit", onExit);
  });
}
