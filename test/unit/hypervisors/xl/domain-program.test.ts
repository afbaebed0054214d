import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Call, DomainSpec } from "../../../../src/hypervisors/hypervisor.ts";
import { observe, see } from "../../../../src/hypervisors/xl/domain-look.ts";
import * as domains from "../../../../src/hypervisors/xl/domains.ts";
import type { HostContext } from "../../../../src/hypervisors/xl/host-context.ts";
import { HostLink } from "../../../../src/hypervisors/xl/host-link.ts";
import { localRunner } from "../../../../src/hypervisors/xl/local-runner.ts";
import { type InstallationId, newId, type VmId } from "../../../../src/lib/ids.ts";
import { type FakeXl, makeFakeXl } from "../../../fixtures/fake-xl.ts";

// What the host program does with what a real host shows too seldom or too slowly. The proof that xl is understood is
// the contract suite over a real one.

const INSTALLATION = newId<InstallationId>();
const path = process.env["PATH"] ?? "";
let root: string;
let xl: FakeXl;
let host: HostContext;
const changed: string[] = [];

const call: Call = { signal: new AbortController().signal, timeoutMs: 60_000, beforeSend: () => undefined };

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), "drover-xl-domains-"));
  xl = makeFakeXl();
  process.env["PATH"] = `${xl.path}:${path}`;
  mkdirSync(join(root, "pool"));
  writeFileSync(join(root, "pool", "vmlinuz"), "");
  const link = new HostLink({ runner: localRunner(), directory: join(root, INSTALLATION), fence: "1" });
  await link.takeHost(call, 5);
  changed.length = 0;
  host = {
    link,
    installationId: INSTALLATION,
    pools: [{ name: "pool", path: join(root, "pool") }],
    networks: [],
    consoleLogs: null,
    defaultBridge: "no-such-bridge",
    changed: (_uuid, detail) => changed.push(detail),
  };
});
afterEach(() => {
  process.env["PATH"] = path;
  xl.stop();
  rmSync(root, { recursive: true, force: true });
});

function spec(overrides: Partial<DomainSpec> = {}): DomainSpec {
  const uuid = newId<VmId>();
  return {
    uuid,
    name: `vm-${uuid.slice(-12)}`,
    installationId: INSTALLATION,
    guestType: "pv",
    cpuCount: 2,
    memoryMib: 256,
    boot: { kind: "kernel", kernel: { pool: "pool", name: "vmlinuz" }, initrd: null, commandLine: "" },
    disks: [],
    nics: [],
    consolePool: "pool",
    ...overrides,
  };
}

async function define(overrides: Partial<DomainSpec> = {}): Promise<DomainSpec> {
  const made = spec(overrides);
  await domains.define(host, made, call);
  return made;
}

async function start(overrides: Partial<DomainSpec> = {}): Promise<DomainSpec> {
  const made = await define(overrides);
  await change("start", made);
  xl.set(made.uuid, "-b----", "1.5");
  return made;
}

const change = (kind: Parameters<typeof domains.changePower>[1], { uuid }: DomainSpec): Promise<void> =>
  domains.changePower(host, kind, uuid, call);
const home = ({ uuid }: DomainSpec, ...names: string[]): string =>
  join(root, INSTALLATION, "domains", uuid, ...names);
const power = async ({ uuid }: DomainSpec): Promise<string | undefined> => {
  const seen = await observe(host, uuid, call);
  return seen === null ? undefined : `${seen.power} ${seen.reason ?? ""}`.trim();
};

describe("definitions", () => {
  it("are kept as Drover wrote them, with what xl is given, and for nobody else to read", async () => {
    const made = await define();
    expect(readdirSync(home(made)).sort()).toEqual(["domain.cfg", "domain.json"]);
    const config = readFileSync(home(made, "domain.cfg"), "utf8");
    expect(config).toMatch(/^# name vm-/);
    expect(config).toContain(`\n# file ${join(root, "pool", "vmlinuz")}\n`);
    expect(config).toMatch(/\n# end\n$/);
    expect(await observe(host, made.uuid, call)).toEqual({
      uuid: made.uuid,
      name: made.name,
      power: "off",
      reason: null,
      cpuCount: 2,
      memoryMib: 256,
      installationId: INSTALLATION,
      vmId: made.uuid,
      autostart: false,
    });
  });

  it("of a name that runs on the host, or that another installation has, are refused", async () => {
    xl.add(newId(), "taken", "-b----");
    await expect(define({ name: "taken" })).rejects.toMatchObject({ reason: "already-exists" });
    await define({ name: "mine" });
    await expect(define({ name: "mine" })).rejects.toMatchObject({ reason: "already-exists" });
    const running = await start({ name: "own" });
    await domains.define(host, running, call);
    expect((await see(host, "*", call)).definitions).toHaveLength(2);
  });

  it("name what the host can have: no pool that is neither, no kernel but in a file, no network that is no bridge", async () => {
    const volume = { pool: "neither/nor", name: "x" };
    await expect(
      define({ disks: [{ name: "root", kind: "disk", volume, format: "raw" }] }),
    ).rejects.toMatchObject({
      reason: "invalid-spec",
    });
    const kernel = { pool: "vg0", name: "x" };
    await expect(
      define({ boot: { kind: "kernel", kernel, initrd: null, commandLine: "" } }),
    ).rejects.toMatchObject({ reason: "invalid-spec" });
    const nics = [{ name: "eth0", network: "no bridge has this name", macAddress: "52:54:00:00:00:01" }];
    await expect(define({ nics })).rejects.toMatchObject({ reason: "invalid-spec" });
  });

  it("that come cut off are refused, and the one before stays", async () => {
    const made = await define();
    const before = readFileSync(home(made, "domain.cfg"), "utf8");
    const cut = host.link.changeDomain("define", made.uuid, call, {
      limitSeconds: 10,
      args: [made.name],
      input: '{"half":1}\n# name',
    });
    await expect(cut).rejects.toMatchObject({ reason: "failed" });
    expect(readFileSync(home(made, "domain.cfg"), "utf8")).toBe(before);
    expect(await power(made)).toBe("off");
  });

  it("are refused for the host's own domain, and so is every change of it", async () => {
    const uuid = "00000000-0000-0000-0000-000000000000" as VmId;
    await expect(domains.define(host, spec({ uuid }), call)).rejects.toMatchObject({ reason: "foreign" });
    for (const kind of ["shutdown", "off", "pause", "start"] as const) {
      await expect(domains.changePower(host, kind, uuid, call)).rejects.toMatchObject({ reason: "foreign" });
    }
    expect(xl.calls()).toEqual([]);
  });

  it("of another installation that cannot be read are listed all the same, ours are an error", async () => {
    const [other, uuid] = [newId(), newId()];
    mkdirSync(join(root, other, "domains", uuid), { recursive: true });
    writeFileSync(join(root, other, "domains", uuid, "domain.json"), '{"version":9}');
    expect(await observe(host, uuid, call)).toMatchObject({
      name: uuid,
      power: "off",
      installationId: other,
    });
    const made = await define();
    writeFileSync(home(made, "domain.json"), '{"version":9}');
    await expect(observe(host, made.uuid, call)).rejects.toMatchObject({ reason: "failed" });
  });
});

describe("starting", () => {
  it("creates once, however often and from how many sides at once it is asked", async () => {
    const made = await define();
    await Promise.all([change("start", made), change("start", made), change("start", made)]);
    expect(xl.calls()).toEqual([`create ${home(made, "domain.cfg")}`]);
    expect(changed).toEqual(["define", "start", "start", "start"]);
  });

  it("leaves the domain off where a file or a bridge is missing, without asking xl", async () => {
    const kernel = { pool: "pool", name: "missing" };
    const lost = await define({ boot: { kind: "kernel", kernel, initrd: null, commandLine: "" } });
    await expect(change("start", lost)).rejects.toMatchObject({
      reason: "invalid-spec",
      message: expect.stringContaining("pool/missing") as string,
    });
    const disk = {
      name: "root",
      kind: "disk",
      volume: { pool: "vg0", name: "root.raw" },
      format: "raw",
    } as const;
    await expect(change("start", await define({ disks: [disk] }))).rejects.toThrow(
      "there is no /dev/vg0/root.raw",
    );
    const nics = [{ name: "eth0", network: "default", macAddress: "52:54:00:00:00:01" }];
    await expect(change("start", await define({ nics }))).rejects.toThrow("no-such-bridge");
    expect(xl.calls()).toEqual([]);
  });

  it("leaves nothing half built behind when xl fails, and says why in its words", async () => {
    const made = await define();
    const half = `make "${made.name}" ${made.uuid} --p---
      echo 'libxl: error: libxl_device.c:1: script: Could not find bridge device nobr' >&2; exit 3`;
    xl.before("create", half);
    await expect(change("start", made)).rejects.toMatchObject({
      reason: "invalid-spec",
      message: expect.stringContaining("Could not find bridge device nobr") as string,
    });
    expect(xl.domains()).toEqual({});
    expect(await power(made)).toBe("off");
  });

  it("clears away what an xl that was killed has left half built", async () => {
    const made = await define();
    xl.add(made.uuid, made.name, "--p---", "0.0");
    await change("start", made);
    expect(xl.calls()).toEqual(["destroy 1", `create ${home(made, "domain.cfg")}`]);
  });

  it("clears away a crashed domain, and one that nobody serves any more", async () => {
    for (const states of ["---sc-", "---sr-", "---s--"]) {
      const made = await start();
      xl.endDaemon(made.uuid);
      xl.set(made.uuid, states);
      await change("start", made);
      expect(xl.domains()[made.uuid]).toMatch(/ -b----$/);
    }
  });

  it("waits for a guest that is on its way down, and starts it then", async () => {
    const made = await start();
    xl.set(made.uuid, "---s--");
    setTimeout(() => {
      xl.set(made.uuid, null);
    }, 1000);
    await change("start", made);
    expect(xl.calls().filter((line) => line.startsWith("create"))).toHaveLength(2);
    expect(xl.calls().filter((line) => line.startsWith("destroy"))).toHaveLength(0);
  });
});

describe("stopping", () => {
  it("asks a guest by Xen's store, and an emulated machine by its power button", async () => {
    const made = await start();
    await change("shutdown", made);
    await change("reboot", made);
    const hvm = await start({ guestType: "hvm" });
    await change("shutdown", hvm);
    expect(xl.calls().filter((line) => !line.startsWith("create"))).toEqual([
      "xenstore-write /local/domain/1/control/shutdown poweroff",
      "xenstore-write /local/domain/1/control/shutdown reboot",
      "shutdown -F 2",
    ]);
  });

  it("switches off a domain that is gone for the moment of its reboot when it is back", async () => {
    const made = await start();
    // A daemon lives, and the domain is not there.
    const daemon = spawn("sh", ["-c", "sleep 60; true", "xl", home(made, "domain.cfg")], { detached: true });
    xl.set(made.uuid, null);
    setTimeout(() => {
      xl.add(made.uuid, made.name, "-b----");
    }, 1000);
    xl.before("destroy", `kill ${daemon.pid ?? 0}`);
    await change("off", made);
    expect(xl.domains()).toEqual({});
    expect(xl.calls().at(-1)).toBe("destroy 2");
  });

  it("ends a restart that does not come to its end, so that nothing comes back behind it", async () => {
    const made = await start();
    const daemon = spawn("sh", ["-c", "sleep 90; true", "xl", home(made, "domain.cfg")], { detached: true });
    const ended = once(daemon, "exit");
    xl.set(made.uuid, null);
    await change("off", made);
    expect(await ended).toEqual([null, "SIGTERM"]);
    await domains.remove(host, made.uuid, call);
    expect(existsSync(home(made, "domain.json"))).toBe(false);
  });

  it("removes a crashed domain with what is left of it, and refuses one that is on", async () => {
    const made = await start();
    await expect(domains.remove(host, made.uuid, call)).rejects.toMatchObject({ reason: "invalid-state" });
    xl.set(made.uuid, "---sc-");
    await domains.remove(host, made.uuid, call);
    expect(xl.domains()).toEqual({});
    expect(existsSync(home(made))).toBe(false);
    await domains.remove(host, made.uuid, call);
  });
});

describe("a domain that dies slowly", () => {
  // Its daemon ends with the command, its pages are given back later, and until then it has its name.
  beforeEach(() => {
    xl.before(
      "destroy",
      'find_domain "$2"; read -r name uuid rest <"$state/$2"; : >"$here/no-daemon-$uuid"; change "$2" -----d\n' +
        '(sleep 1; rm "$state/$2") >/dev/null 2>&1 &\nexit 0\n',
    );
    xl.before(
      "create",
      'if grep -qs "^$(sed -n \'s/^name = "\\(.*\\)"/\\1/p\' "$2") " "$state"/*; then\n' +
        '  echo "Domain with name already exists" >&2; exit 3\nfi\n',
    );
  });

  it("is reset all the same", async () => {
    const { uuid } = await define();
    await domains.changePower(host, "start", uuid, call);
    await domains.changePower(host, "reset", uuid, call);
    expect(xl.domains()).toEqual({ [uuid]: "2 -b----" });
  });

  it("is started again right after it was cut off", async () => {
    const { uuid } = await define();
    await domains.changePower(host, "start", uuid, call);
    xl.before("destroy", 'change "$2" -----d\n(sleep 1; rm "$state/$2") >/dev/null 2>&1 &\nexit 0\n');
    xl.endDaemon(uuid);
    xl.set(uuid, "---s--");
    await domains.changePower(host, "start", uuid, call);
    expect(xl.domains()).toEqual({ [uuid]: "2 -b----" });
  });
});

describe("saved memory", () => {
  it("is used up before the guest runs on", async () => {
    const made = await start();
    await change("save", made);
    expect(await power(made)).toBe("saved saved");
    expect(xl.calls().at(-1)).toBe(`save 1 ${home(made, "saved.part")}`);
    xl.before("unpause", `[ ! -e "${home(made, "saved")}" ] || exit 9`);
    await change("start", made);
    expect(xl.calls().slice(-2)).toEqual([`restore -p ${home(made, "saved")}`, "unpause 2"]);
    expect(await power(made)).toBe("running");
  });

  it("that does not come to its end is none, and the guest runs on", async () => {
    const made = await start();
    xl.before("save", 'echo half >"$3"; echo "xc: error: write failed: No space left on device" >&2; exit 1');
    await expect(change("save", made)).rejects.toMatchObject({ reason: "storage-full" });
    expect(readdirSync(home(made)).filter((name) => name.startsWith("saved"))).toEqual([]);
    expect(await power(made)).toBe("running");
  });

  it("is given up for a forced stop, which does not wait for it", async () => {
    const made = await start();
    xl.before("save", 'echo half >"$3"; while [ -e "$3" ]; do sleep 0.1; done');
    const save = expect(change("save", made)).rejects.toMatchObject({ name: "HypervisorError" });
    await vi.waitFor(() => {
      expect(existsSync(home(made, "saved.part"))).toBe(true);
    });
    await change("off", made);
    await save;
    expect(await power(made)).toBe("off");
    expect(readdirSync(home(made)).filter((name) => name.startsWith("saved"))).toEqual([]);
  });

  it("is not given up for an earlier owner", async () => {
    const made = await start();
    xl.before("save", 'while [ ! -e "$here/go" ]; do sleep 0.1; done');
    const save = change("save", made);
    await vi.waitFor(() => {
      expect(xl.calls().at(-1)).toMatch(/^save/);
    });
    const earlier = new HostLink({ runner: localRunner(), directory: join(root, INSTALLATION), fence: "0" });
    const off = domains.changePower({ ...host, link: earlier }, "off", made.uuid, call);
    await sleep(1000);
    writeFileSync(join(xl.path, "go"), "");
    await expect(off).rejects.toMatchObject({ name: "HypervisorError" });
    await save;
    expect(await power(made)).toBe("saved saved");
  });

  it("that cannot be restored stays", async () => {
    const made = await start();
    await change("save", made);
    xl.before("restore", "exit 3");
    await expect(change("start", made)).rejects.toMatchObject({ name: "HypervisorError" });
    expect(await power(made)).toBe("saved saved");
  });

  it("is thrown away with the power and with the definition", async () => {
    const made = await start();
    await change("save", made);
    await change("off", made);
    expect(await power(made)).toBe("off");
    await change("start", made);
    await change("save", made);
    await domains.remove(host, made.uuid, call);
    expect(existsSync(home(made))).toBe(false);
  });
});

describe("what is seen", () => {
  it("a domain that we paused is paused at once, though its guest has hardly run", async () => {
    const made = await define();
    await change("start", made);
    await change("pause", made);
    const begun = performance.now();
    expect(await power(made)).toBe("paused");
    expect(performance.now() - begun).toBeLessThan(2000);
    await change("pause", made);
    await change("resume", made);
    expect(await power(made)).toBe("running");
    expect(xl.calls().slice(1)).toEqual(["pause 1", "unpause 1"]);
  });

  it("a domain whose daemon died stays behind when its guest stops", async () => {
    const made = await start();
    xl.endDaemon(made.uuid);
    xl.set(made.uuid, "---s--");
    await vi.waitFor(async () => {
      expect((await see(host, made.uuid, call)).served.size).toBe(0);
    });
    expect(await power(made)).toBe("off stranded");
    xl.set(made.uuid, "---sr-");
    expect(await power(made)).toBe("crashed reboot-lost");
  }, 30_000);

  it("a domain in the middle of a change is not off", async () => {
    const made = await start();
    xl.before("create", "sleep 2");
    const reset = change("reset", made);
    await vi.waitFor(() => {
      expect(xl.calls()).toContain("destroy 1");
    });
    expect(await power(made)).toBe("running");
    await reset;
  });

  it("a definition that is replaced shows at the next start that is none from saved memory", async () => {
    const made = await start();
    await domains.define(host, { ...made, cpuCount: 4 }, call);
    expect(await observe(host, made.uuid, call)).toMatchObject({ power: "running", cpuCount: 2 });
    await change("save", made);
    expect(await observe(host, made.uuid, call)).toMatchObject({ power: "saved", cpuCount: 2 });
    await change("start", made);
    expect(await observe(host, made.uuid, call)).toMatchObject({ power: "running", cpuCount: 2 });
    await change("off", made);
    expect(await observe(host, made.uuid, call)).toMatchObject({ power: "off", cpuCount: 4 });
    await change("start", made);
    expect(await observe(host, made.uuid, call)).toMatchObject({ power: "running", cpuCount: 4 });
  });

  it("a change that was killed holds up nothing and looks like none", async () => {
    const made = await define();
    writeFileSync(join(root, INSTALLATION, "locks", `${made.uuid}.lock`), "1 the start of a domain\n");
    expect((await see(host, "*", call)).served.size).toBe(0);
    await change("start", made);
    expect(readdirSync(join(root, INSTALLATION, "locks"))).toEqual([]);
  });
});
