import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { z } from "zod";
import { removeEmbeddedPostgres, startEmbeddedPostgres } from "../../src/db/embedded-postgres.ts";
import { serverProcesses } from "../../src/db/embedded-postgres-process.ts";
import type { Log } from "../../src/lib/log.ts";
import { execute } from "../fixtures/database.ts";
import { silentLog } from "../fixtures/log.ts";

const USER = fileURLToPath(new URL("../fixtures/embedded-postgres-user.ts", import.meta.url));
const Got = z.object({ url: z.string(), adopted: z.boolean() });
const SOON = { timeout: 30_000 };

let dataDirs: string[];
let users: ChildProcess[];
let dataDir: string;
beforeEach(() => {
  dataDirs = [];
  users = [];
  dataDir = newDataDir();
});
afterEach(async () => {
  for (const user of users) if (user.exitCode === null) user.kill("SIGKILL");
  for (const directory of dataDirs) {
    await expect.poll(() => removeEmbeddedPostgres({ dataDir: directory }), SOON).toBeUndefined();
  }
  for (const directory of dataDirs) rmSync(directory, { recursive: true, force: true });
});

function newDataDir(inside = tmpdir()): string {
  const directory = mkdtempSync(join(inside, "drover-db-"));
  dataDirs.unshift(directory);
  return directory;
}

const start = (directory = dataDir) => startEmbeddedPostgres({ dataDir: directory, logger: silentLog });
const cluster = (directory = dataDir) => join(directory, "postgres/cluster");
const socketOf = (url: string) => new URL(url).searchParams.get("host") ?? "";

/** Pid of the postmaster, as Postgres itself wrote it down. */
function postmaster(directory = dataDir): number {
  return Number(readFileSync(join(cluster(directory), "postmaster.pid"), "utf8").split("\n")[0]);
}

/** Starts another process that uses the data directory, in a process group of its own. */
async function startUser(): Promise<{
  readonly process: ChildProcess;
  readonly url: string;
  readonly adopted: boolean;
}> {
  const user = spawn(process.execPath, [USER, dataDir], {
    stdio: ["pipe", "pipe", "inherit"],
    detached: true,
  });
  users.push(user);
  const [line] = z.tuple([z.string()]).parse(await once(createInterface({ input: user.stdout }), "line"));
  return { process: user, ...Got.parse(JSON.parse(line)) };
}

async function end(user: ChildProcess, how: () => void): Promise<void> {
  const ended = once(user, "exit");
  how();
  await ended;
}

function parentOf(pid: number): number {
  return Number(/^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
}

async function remember(url: string, word: string): Promise<void> {
  await execute(url, `CREATE TABLE IF NOT EXISTS words (word text); INSERT INTO words VALUES ('${word}')`);
}

async function remembered(url: string): Promise<readonly string[]> {
  return (await execute<{ word: string }>(url, "SELECT word FROM words ORDER BY word")).map(
    ({ word }) => word,
  );
}

/** Runs a shell script as the server's account, for Postgres tells its own account's processes only. */
async function startAsServer(
  script: string,
): Promise<{ readonly printed: string; readonly process: ChildProcess }> {
  const { uid, gid } = statSync(cluster());
  const shell = spawn("sh", ["-c", script], { stdio: ["ignore", "pipe", "inherit"], uid, gid, cwd: "/" });
  users.push(shell);
  const [printed] = z.tuple([z.string()]).parse(await once(createInterface({ input: shell.stdout }), "line"));
  return { printed, process: shell };
}

/** Leaves what a server leaves that was killed: its pid beside the cluster and beside its socket. */
function writePid(pid: string): void {
  writeFileSync(join(dataDir, "postgres/socket/.s.PGSQL.5432.lock"), `${pid}\n${cluster()}\n1\n5432\n`);
  writeFileSync(
    join(cluster(), "postmaster.pid"),
    `${pid}\n${cluster()}\n1\n5432\n/nowhere\n\n 1 1\nready\n`,
  );
}

describe("the embedded Postgres", () => {
  it("starts cold, keeps its data over a warm start, and is gone after stop", async () => {
    const cold = await start();
    expect(cold.adopted).toBe(false);
    await remember(cold.url, "kept");
    await cold.stop();
    await cold.stop();
    expect(serverProcesses(cluster())).toEqual([]);
    const warm = await start();
    expect(warm.adopted).toBe(false);
    expect(await remembered(warm.url)).toEqual(["kept"]);
    await warm.stop();
    expect(existsSync(join(cluster(), "postmaster.pid"))).toBe(false);
  });

  it("listens on a private socket only, as somebody who is not root, and writes to the disk", async () => {
    const { url, stop } = await start();
    const names = ["listen_addresses", "fsync", "full_page_writes", "synchronous_commit"];
    const settings = await execute<{ value: string }>(
      url,
      `SELECT current_setting(name) AS value FROM unnest('{${names.join(",")}}'::text[]) AS name`,
    );
    expect(settings.map(({ value }) => value)).toEqual(["", "on", "on", "on"]);
    expect(statSync(socketOf(url)).mode & 0o777).toBe(0o700);
    expect(statSync(cluster()).mode & 0o777).toBe(0o700);
    expect(statSync(`/proc/${postmaster()}`).uid).not.toBe(0);
    expect(statSync(`/proc/${postmaster()}`).uid).toBe(statSync(socketOf(url)).uid);
    await stop();
  });

  it("is started by one of many that begin at once, and stopped by the last that leaves", async () => {
    const all = await Promise.all([start(), start(), start()]);
    expect(all.map(({ adopted }) => adopted).sort()).toEqual([false, true, true]);
    const pid = postmaster();
    for (const { stop } of all.slice(1)) await stop();
    expect(postmaster()).toBe(pid);
    await all[0].stop();
    expect(serverProcesses(cluster())).toEqual([]);
  });

  it("serves two data directories side by side", async () => {
    const other = newDataDir();
    const [a, b] = await Promise.all([start(), start(other)]);
    await remember(a.url, "a");
    await remember(b.url, "b");
    expect([await remembered(a.url), await remembered(b.url)]).toEqual([["a"], ["b"]]);
    await a.stop();
    expect(await remembered(b.url)).toEqual(["b"]);
    await b.stop();
  });

  it("works in a directory whose path is too long for a socket", async () => {
    const long = join(dataDir, "long".repeat(30));
    mkdirSync(long, { mode: 0o711 });
    dataDirs.unshift(long);
    const { url, stop } = await start(long);
    expect(socketOf(url).length).toBeLessThan(90);
    expect(statSync(socketOf(url)).mode & 0o777).toBe(0o700);
    await remember(url, "kept");
    await stop();
    rmSync(socketOf(url), { recursive: true }); // as a reboot does
    const again = await start(long);
    expect(await remembered(again.url)).toEqual(["kept"]);
    await again.stop();
    await removeEmbeddedPostgres({ dataDir: long });
    expect(existsSync(socketOf(again.url))).toBe(false);
  });

  it("works below a directory closed to everybody else, and leaves that directory closed", async () => {
    const inside = newDataDir(dataDir);
    const { url, stop } = await start(inside);
    await remember(url, "kept");
    expect(statSync(dataDir).mode & 0o777).toBe(0o700);
    await stop();
    const again = await start(inside);
    expect(await remembered(again.url)).toEqual(["kept"]);
    await again.stop();
  });

  it("is not removed while somebody uses it", async () => {
    const { url, stop } = await start();
    await expect(removeEmbeddedPostgres({ dataDir })).rejects.toThrow(/in use/);
    await remember(url, "kept");
    await stop();
  });
});

describe("after a failure", () => {
  it("adopts the server of a service that was killed", async () => {
    const killed = await startUser();
    const pid = postmaster();
    await remember(killed.url, "kept");
    await end(killed.process, () => killed.process.kill("SIGKILL"));
    const { url, adopted, stop } = await start();
    expect({ adopted, pid: postmaster() }).toEqual({ adopted: true, pid });
    expect(await remembered(url)).toEqual(["kept"]);
    await stop();
    expect(serverProcesses(cluster())).toEqual([]);
  });

  it("counts out a user that was killed: the one that is left stops the server", async () => {
    const { stop } = await start();
    const user = await startUser();
    expect(user.adopted).toBe(true);
    await end(user.process, () => user.process.kill("SIGKILL"));
    await stop();
    expect(serverProcesses(cluster())).toEqual([]);
  });

  it("leaves the server to another user that stays", async () => {
    const user = await startUser();
    const { adopted, stop } = await start();
    expect(adopted).toBe(true);
    await end(user.process, () => user.process.stdin?.end());
    expect(serverProcesses(cluster())).not.toEqual([]);
    await stop();
    expect(serverProcesses(cluster())).toEqual([]);
  });

  it("keeps the server through a Ctrl-C that ends the service's whole process group", async () => {
    const user = await startUser();
    const pid = postmaster();
    await end(user.process, () => process.kill(-(user.process.pid ?? Number.NaN), "SIGINT"));
    const { adopted, stop } = await start();
    expect({ adopted, pid: postmaster() }).toEqual({ adopted: true, pid });
    await stop();
  });

  it("recovers when the server was killed with its user, and keeps what was committed", async () => {
    const user = await startUser();
    await remember(user.url, "kept");
    await end(user.process, () => user.process.kill("SIGKILL"));
    process.kill(postmaster(), "SIGKILL");
    const { url, adopted, stop } = await start();
    expect(adopted).toBe(false);
    expect(await remembered(url)).toEqual(["kept"]);
    await stop();
    expect(serverProcesses(cluster())).toEqual([]);
  });

  it("is started again by one of its users whenever the server dies, and never twice", async () => {
    const { url, stop } = await start();
    const users = [await startUser(), await startUser()];
    await remember(url, "kept");
    for (const _ of [1, 2]) {
      const killed = postmaster();
      process.kill(killed, "SIGKILL");
      await expect.poll(() => remembered(url), SOON).toEqual(["kept"]);
      expect(postmaster()).not.toBe(killed);
      // What everybody started who would start one; the others' children have another parent.
      const parents = serverProcesses(cluster())
        .filter((pid) => pid !== postmaster())
        .map(parentOf);
      expect(new Set(parents)).toEqual(new Set([postmaster()]));
    }
    for (const { process: user } of users) await end(user, () => user.stdin?.end());
    expect(await remembered(url)).toEqual(["kept"]);
    await stop();
    expect(serverProcesses(cluster())).toEqual([]);
  });

  it("is not made anew when its data was removed under it", async () => {
    const error = vi.fn<Log["error"]>();
    const { stop } = await startEmbeddedPostgres({ dataDir, logger: { ...silentLog, error } });
    process.kill(postmaster(), "SIGKILL");
    rmSync(cluster(), { recursive: true, force: true, maxRetries: 20 });
    const words = () => JSON.stringify(error.mock.calls);
    await expect.poll(words, SOON).toContain("The embedded database is gone");
    expect(existsSync(cluster())).toBe(false);
    await stop();
  });

  it("is not started again once its last user has left", async () => {
    const { stop } = await start();
    process.kill(postmaster(), "SIGKILL");
    await stop();
    // The dead one's children notice by themselves.
    await expect.poll(() => serverProcesses(cluster()), SOON).toEqual([]);
    await sleep(2_000);
    expect(serverProcesses(cluster())).toEqual([]);
  });

  it("is not stopped by a stale postmaster.pid whose pid is another program's now", async () => {
    await (await start()).stop();
    writePid((await startAsServer("echo $$; exec sleep 600")).printed);
    const { adopted, stop } = await start();
    expect(adopted).toBe(false);
    await stop();
  });

  it("is not stopped by a stale postmaster.pid whose process is a zombie", async () => {
    await (await start()).stop();
    // The parent becomes a program that never asks how its child ended.
    const { printed: zombie, process: parent } = await startAsServer("sleep 600 & echo $!; exec sleep 600");
    await expect.poll(() => readFileSync(`/proc/${parent.pid}/comm`, "utf8"), SOON).toBe("sleep\n");
    process.kill(Number(zombie), "SIGKILL");
    await expect.poll(() => readFileSync(`/proc/${zombie}/stat`, "utf8"), SOON).toMatch(/\) Z /);
    writePid(zombie);
    const { adopted, stop } = await start();
    expect(adopted).toBe(false);
    await stop();
  });

  it("makes a cluster anew whose making was broken off", async () => {
    mkdirSync(`${cluster()}.new/base`, { recursive: true });
    writeFileSync(`${cluster()}.new/PG_VERSION`, "18\n");
    const { url, stop } = await start();
    await remember(url, "kept");
    await stop();
  });

  it("refuses a cluster of another major version, says what to do, and changes nothing", async () => {
    await (await start()).stop();
    writeFileSync(join(cluster(), "PG_VERSION"), "17\n");
    await expect(start()).rejects.toThrow(
      /made by Postgres 17; this release of Drover ships Postgres 18.*pg_dump/,
    );
    expect(readFileSync(join(cluster(), "PG_VERSION"), "utf8")).toBe("17\n");
    expect(serverProcesses(cluster())).toEqual([]);
  });

  it("tells the end of the server's log when it does not start, and leaves nothing running", async () => {
    const broken = startEmbeddedPostgres({
      dataDir,
      logger: silentLog,
      settings: { shared_buffers: "much" },
    });
    await expect(broken).rejects.toThrow(/invalid value for parameter "shared_buffers"/);
    expect(serverProcesses(cluster())).toEqual([]);
    await (await start()).stop();
  });
});
