import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import type { Call, HypervisorError } from "../../src/hypervisors/hypervisor.ts";
import { HostLink } from "../../src/hypervisors/xl/host-link.ts";
import { localRunner } from "../../src/hypervisors/xl/local-runner.ts";
import type { Runner } from "../../src/hypervisors/xl/runner.ts";
import { sshRunner } from "../../src/hypervisors/xl/ssh-runner.ts";
import type { SshTransport } from "../../src/libvirt-rpc/ssh.ts";
import { type LoopbackSshd, startLoopbackSshd } from "../fixtures/loopback-sshd.ts";

// How the xl driver runs programs on a host, over a real sshd and with plain programs in xl's place.

let sshd: LoopbackSshd;
let directory: string;
const opened: Runner[] = [];

beforeAll(async () => {
  sshd = await startLoopbackSshd();
});
afterAll(() => sshd.stop());
beforeEach(() => {
  directory = join(mkdtempSync(join(tmpdir(), "drover-xl-host-")), "installation");
});
afterEach(async () => {
  await Promise.all(opened.splice(0).map((runner) => runner.close()));
  rmSync(join(directory, ".."), { recursive: true, force: true });
});

const signal = new AbortController().signal;
const call = (overrides: Partial<Call> = {}): Call => ({
  signal,
  timeoutMs: 30_000,
  beforeSend: () => undefined,
  ...overrides,
});

const transport = (overrides: Partial<SshTransport> = {}): SshTransport => ({
  kind: "ssh",
  host: "127.0.0.1",
  port: sshd.port,
  user: "root",
  privateKey: sshd.privateKey,
  knownHosts: sshd.knownHosts,
  ...overrides,
});

const runners: Readonly<Record<string, () => Promise<Runner>>> = {
  ssh: () => sshRunner(transport(), signal),
  local: async () => localRunner(),
};

/** A connection of an owner, who takes the host. */
async function link(kind: string, fence: string | null = "5", waitSeconds = 5): Promise<HostLink> {
  const runner = await runners[kind]?.();
  if (runner === undefined) throw new Error(`no such runner: ${kind}`);
  opened.push(runner);
  const made = new HostLink({ runner, directory, fence });
  await made.takeHost(call(), waitSeconds);
  return made;
}

const options = { lock: "thing", limitSeconds: 30 };
const sh = (text: string, ...args: string[]): [string, ...string[]] => ["sh", "-c", text, "sh", ...args];
const file = (name: string): string => join(directory, "..", name);
const lines = (name: string): string[] =>
  existsSync(file(name)) ? readFileSync(file(name), "utf8").trimEnd().split("\n") : [];
const becomes = (name: string, content: string[]): Promise<void> =>
  vi.waitFor(() => {
    expect(lines(name)).toEqual(content);
  }, 10_000);

/** A change that says when it begins, and goes on until the file `until` is there. */
const SLOW =
  'echo "$1 begins" >>"$2/log"; until [ -e "$2/$3" ]; do sleep 0.05; done; echo "$1 ends" >>"$2/log"';
const slow = (name: string, until = "go"): [string, ...string[]] =>
  sh(SLOW, name, join(directory, ".."), until);
const quick = (name: string): [string, ...string[]] =>
  sh('echo "$1" >>"$2/log"', name, join(directory, ".."));
const go = (until = "go"): void => {
  writeFileSync(file(until), "");
};

describe.each(["ssh", "local"])("programs on a host: %s", (kind) => {
  it("gives the program its arguments as they are, and back its output and status", async () => {
    const host = await link(kind);
    const odd = ["a b", "it's", '"$HOME"', "`id`", "*", "", "line\nbreak", "\\n", "ü€", "-n"];
    const program = sh('printf "%s|" "$@"; echo oops >&2; exit 3', ...odd);
    const expected = { exitCode: 3, stdout: odd.map((word) => `${word}|`).join(""), stderr: "oops\n" };
    expect(await host.read(program, call())).toEqual(expected);
    expect(await host.change(program, call(), options)).toEqual(expected);
  });

  it("tells a program's own high statuses from those of ssh and of ours", async () => {
    const host = await link(kind);
    for (const status of [240, 255]) {
      expect(await host.read(sh(`exit ${status}`), call())).toMatchObject({ exitCode: 239 });
      expect(await host.change(sh(`exit ${status}`), call(), options)).toMatchObject({ exitCode: 239 });
    }
  });

  it("reads bytes that are no text", async () => {
    const host = await link(kind);
    const { stdout } = await host.readBytes(sh("printf '\\000\\377\\n'"), call());
    expect([...stdout]).toEqual([0, 255, 10]);
  });

  it("ends a program on the host that runs longer than it may", async () => {
    const host = await link(kind);
    const result = await host.change(["sleep", "60"], call(), { lock: "thing", limitSeconds: 1 });
    expect(result.exitCode).toBe(124);
    await host.change(quick("after"), call(), options);
  });

  it("asks for the right to change in the tick of the start, and starts nothing without it", async () => {
    const host = await link(kind);
    const refusal = new Error("the lease is over");
    const beforeSend = (): never => {
      throw refusal;
    };
    await expect(host.change(quick("done"), call({ beforeSend }), options)).rejects.toBe(refusal);
    await host.read(["true"], call({ beforeSend }));
    expect(lines("log")).toEqual([]);
  });

  it("changes of one thing wait for each other, those of others and reads do not", async () => {
    const host = await link(kind);
    const first = host.change(slow("first"), call(), options);
    await becomes("log", ["first begins"]);
    const second = host.change(quick("second"), call(), options);
    await host.change(quick("other"), call(), { ...options, lock: "/a/volume of another name" });
    await host.read(["true"], call());
    go();
    await Promise.all([first, second]);
    expect(lines("log")).toEqual(["first begins", "other", "first ends", "second"]);
    expect(readdirSync(join(directory, "locks"))).toEqual([]);
  });

  it("a change that waited for one that has ended is waited for itself", async () => {
    const host = await link(kind);
    const first = host.change(slow("first"), call(), options);
    await becomes("log", ["first begins"]);
    const second = host.change(slow("second", "go on"), call(), options);
    await vi.waitFor(() => {
      expect(waitingFor("thing")).toBe(1);
    }, 10_000);
    go();
    await becomes("log", ["first begins", "first ends", "second begins"]);
    const third = host.change(quick("third"), call(), options);
    await vi.waitFor(() => {
      expect(waitingFor("thing")).toBe(1);
    }, 10_000);
    go("go on");
    await Promise.all([first, second, third]);
    expect(lines("log").slice(3)).toEqual(["second ends", "third"]);
  });

  it("a change that waits too long for another says for which", async () => {
    const host = await link(kind);
    const first = host.change(slow("first"), call(), options);
    await becomes("log", ["first begins"]);
    const second = host.change(quick("second"), call({ timeoutMs: 8_000 }), options);
    await expect(second).rejects.toMatchObject({
      reason: "busy",
      message: expect.stringContaining("a change of thing") as string,
    });
    go();
    await first;
    expect(lines("log")).toEqual(["first begins", "first ends"]);
  });

  it("a change whose caller went away while it waited does not begin", async () => {
    const host = await link(kind);
    const first = host.change(slow("first"), call(), options);
    await becomes("log", ["first begins"]);
    const stop = new AbortController();
    const second = host.change(quick("second"), call({ signal: stop.signal }), options);
    await vi.waitFor(() => {
      expect(waitingFor("thing")).toBe(1);
    }, 10_000);
    stop.abort();
    await expect(second).rejects.toMatchObject({ reason: "aborted" });
    go();
    await first;
    await host.change(quick("third"), call(), options);
    await vi.waitFor(() => {
      expect(waitingFor("thing")).toBe(0);
    }, 10_000);
    expect(lines("log")).toEqual(["first begins", "first ends", "third"]);
  });

  it("a call ends at its deadline and when it is given up, and what it began goes on", async () => {
    const host = await link(kind);
    const late = host.change(slow("first"), call({ timeoutMs: 1500 }), options);
    await expect(late).rejects.toMatchObject({ reason: "timeout" });
    const stop = new AbortController();
    const read = host.read(["sleep", "5"], call({ signal: stop.signal }));
    stop.abort();
    await expect(read).rejects.toMatchObject({ reason: "aborted" });
    expect(lines("log")).toEqual(["first begins"]);
    const next = host.change(quick("next"), call(), options);
    go();
    await next;
    expect(lines("log")).toEqual(["first begins", "first ends", "next"]);
  });

  it("does not leave the locks to what a change leaves behind", async () => {
    const host = await link(kind);
    const daemon = "setsid sleep 10 >/dev/null 2>&1 & ls -l /proc/$$/fd";
    const { stdout } = await host.change(sh(daemon), call(), options);
    expect(stdout).not.toContain(".lock\n");
    await host.change(quick("next"), call({ timeoutMs: 8_000 }), options);
    expect(lines("log")).toEqual(["next"]);
  });

  it("writes a source to the program, and ends its stdin where the source breaks", async () => {
    const host = await link(kind);
    const size = 3_000_017;
    const source = async function* (): AsyncGenerator<Uint8Array> {
      for (let left = size; left > 0; left -= 100_000) yield Buffer.alloc(Math.min(left, 100_000), "x");
    };
    const counted = await host.change(["wc", "-c"], call(), { ...options, input: source() });
    expect(counted.stdout.trim()).toBe(String(size));
    const text = await host.change(["cat"], call(), { ...options, input: "a text" });
    expect(text.stdout).toBe("a text");
    const broken = async function* (): AsyncGenerator<Uint8Array> {
      yield Buffer.from("some");
      throw new Error("the source broke");
    };
    const failing = host.change(sh('cat >"$1/got"', join(directory, "..")), call(), {
      ...options,
      input: broken(),
    });
    await expect(failing).rejects.toThrow("the source broke");
    expect(lines("got")).toEqual(["some"]);
  });

  it("does not count the time that a source takes, and gives up one that stalls", async () => {
    const host = await link(kind);
    const lazy = async function* (): AsyncGenerator<Uint8Array> {
      for (let count = 0; count < 5; count++) {
        await new Promise((resolve) => setTimeout(resolve, 500));
        yield Buffer.from("x");
      }
    };
    const result = await host.change(["cat"], call({ timeoutMs: 2000 }), { ...options, input: lazy() });
    expect(result.stdout).toBe("xxxxx");
    const stop = new AbortController();
    const stalled = (async function* (): AsyncGenerator<Uint8Array> {
      yield Buffer.from("x");
      stop.abort();
      await new Promise(() => undefined);
    })();
    const given = host.change(["cat"], call({ signal: stop.signal }), { ...options, input: stalled });
    await expect(given).rejects.toMatchObject({ reason: "aborted" });
  });

  it("a program that ends before it has read its input says why by its status", async () => {
    const host = await link(kind);
    const endless = (async function* (): AsyncGenerator<Uint8Array> {
      for (;;) yield Buffer.alloc(100_000);
    })();
    const result = await host.change(sh("exit 7"), call(), { ...options, input: endless });
    expect(result.exitCode).toBe(7);
  });
});

/** Programs that wait for a lock of the host under test. */
function waitingFor(lock: string): number {
  const out = execFileSync("sh", [
    "-c",
    'for p in /proc/[0-9]*; do [ "$(readlink "$p/exe")" != "$(readlink -f "$(command -v flock)")" ] || readlink "$p/fd/9"; done; true',
  ]).toString();
  return out.split("\n").filter((line) => line === join(directory, "locks", `${lock}.lock`)).length;
}

describe.each(["ssh", "local"])("owners of a host: %s", (kind) => {
  it("an earlier owner is refused, at the door and inside", async () => {
    const before = await link(kind, "b.5");
    await before.change(quick("before"), call(), options);
    const after = await link(kind, "b.6");
    await after.change(quick("after"), call(), options);
    await expect(before.change(quick("late"), call(), options)).rejects.toMatchObject({
      reason: "busy",
      message: expect.stringContaining("later owner") as string,
    });
    await expect(link(kind, "a.9")).rejects.toMatchObject({
      message: expect.stringContaining("later owner") as string,
    });
    await link(kind, "b.6");
    expect(lines("log")).toEqual(["before", "after"]);
  });

  it("a later owner waits for what the earlier one began, and says what it is", async () => {
    const before = await link(kind, "5");
    const running = before.change(slow("first"), call(), options);
    await becomes("log", ["first begins"]);
    await expect(link(kind, "6", 1)).rejects.toMatchObject({
      reason: "busy",
      message: expect.stringContaining("a change of thing") as string,
    });
    // It is shut out already, and what it began is waited for all the same.
    await expect(before.change(quick("late"), call(), { ...options, lock: "other" })).rejects.toThrow(
      "later owner",
    );
    const later = link(kind, "6", 10);
    go();
    await (await later).change(quick("later"), call(), options);
    await running;
    expect(lines("log")).toEqual(["first begins", "first ends", "later"]);
  });

  it("an owner that comes again does not wait for what it began itself", async () => {
    const running = (await link(kind, "5")).change(slow("first"), call(), options);
    await becomes("log", ["first begins"]);
    await link(kind, "5", 1);
    go();
    await running;
  });

  it("a connection without an owner looks, and changes nothing", async () => {
    const host = await link(kind, null);
    expect((await host.read(["echo", "seen"], call())).stdout).toBe("seen\n");
    await expect(host.change(quick("done"), call(), options)).rejects.toMatchObject({
      reason: "unsupported",
    });
    expect(existsSync(directory)).toBe(false);
  });
});

describe("a login over ssh", () => {
  it("an unknown host key is refused with its fingerprint", async () => {
    const stranger = sshRunner(transport({ knownHosts: "" }), signal);
    await expect(stranger).rejects.toMatchObject({
      reason: "host-key-unknown",
      details: { fingerprint: expect.stringMatching(/^SHA256:/) as string, changed: "false" },
    });
  });

  it("a key that the host does not know is not let in", async () => {
    const other = join(sshd.directory, "other");
    execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", other]);
    const stranger = sshRunner(transport({ privateKey: readFileSync(other, "utf8") }), signal);
    await expect(stranger).rejects.toMatchObject({ reason: "authentication" });
  });

  it("a host that nobody answers at is unreachable, and a login that is given up ends", async () => {
    await expect(sshRunner(transport({ port: 1, knownHosts: "" }), signal)).rejects.toMatchObject({
      reason: "unreachable",
    });
    await expect(sshRunner(transport(), AbortSignal.abort())).rejects.toMatchObject({ reason: "aborted" });
    const stop = new AbortController();
    const given = sshRunner(transport(), stop.signal);
    setImmediate(() => {
      stop.abort();
    });
    await expect(given).rejects.toMatchObject({ reason: "aborted" });
  });

  it("leaves no key and no process behind", async () => {
    const traces = (): string[] => [
      ...readdirSync(tmpdir()).filter((name) => /^drover-xl-(?!host)/.test(name)),
      execFileSync("ps", ["--no-headers", "-o", "comm", "--ppid", String(process.pid)], { encoding: "utf8" }),
    ];
    const before = traces().filter((trace) => !trace.includes("ps"));
    const runner = await sshRunner(transport(), signal);
    expect(traces().join()).toContain("ssh");
    await runner.close();
    expect(traces().filter((trace) => !trace.includes("ps"))).toEqual(before);
  });

  it("that is cut tells so once, and what it began goes on and is waited for", async () => {
    const host = await link("ssh");
    const [runner] = opened;
    const told: HypervisorError[] = [];
    runner?.onClose((error) => told.push(error));
    const first = host.change(slow("first"), call(), options);
    await becomes("log", ["first begins"]);
    sshd.cut();
    await expect(first).rejects.toMatchObject({ reason: "unreachable" });
    await vi.waitFor(() => {
      expect(told).toHaveLength(1);
    }, 10_000);
    await expect(host.read(["true"], call())).rejects.toMatchObject({ reason: "unreachable" });
    const again = await link("ssh");
    const next = again.change(quick("next"), call(), options);
    await vi.waitFor(() => {
      expect(waitingFor("thing")).toBe(1);
    }, 10_000);
    go();
    await next;
    await runner?.close();
    expect(lines("log")).toEqual(["first begins", "first ends", "next"]);
    expect(told.map(({ reason }) => reason)).toEqual(["unreachable"]);
    expect(told[0]?.message.split("\n")).toHaveLength(1);
  });

  it("that is closed tells no loss, and refuses what comes later", async () => {
    const host = await link("ssh");
    const [runner] = opened;
    const told: HypervisorError[] = [];
    runner?.onClose((error) => told.push(error));
    await runner?.close();
    await expect(host.read(["true"], call())).rejects.toMatchObject({ reason: "unreachable" });
    expect(told).toEqual([]);
  });

  it("serves as many calls as come", async () => {
    const host = await link("ssh");
    const calls = Array.from({ length: 30 }, (_, index) => host.read(["echo", String(index)], call()));
    const changes = Array.from({ length: 10 }, (_, index) =>
      host.change(quick("x"), call(), { ...options, lock: `thing-${index}` }),
    );
    expect((await Promise.all(calls)).map(({ stdout }) => Number(stdout))).toEqual([...calls.keys()]);
    await Promise.all(changes);
    expect(lines("log")).toHaveLength(10);
  });
});
