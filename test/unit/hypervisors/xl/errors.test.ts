import { describe, expect, it } from "vitest";
import { HypervisorError, type HypervisorErrorReason } from "../../../../src/hypervisors/hypervisor.ts";
import { causeOf, commandFailed, isNotFound, ProgramError } from "../../../../src/hypervisors/xl/errors.ts";
import { fixture } from "./fixture.ts";
import { expectFactsOrRefusal } from "./mangled.ts";

/** What xl said, the status that it ended with, what it means, and the words that say why. */
const RECORDED: readonly (readonly [string, number, HypervisorErrorReason, string])[] = [
  [
    "err-create-baddisk-spec",
    1,
    "invalid-spec",
    "config parsing error in disk specification: unknown parameter",
  ],
  ["err-create-dup", 3, "already-exists", 'Domain with name "a" already exists.'],
  ["err-create-nobridge", 3, "invalid-spec", "Could not find bridge device nobr. Make the bridge"],
  ["err-create-nodisk", 3, "invalid-spec", "Disk vdev=xvda failed to stat: /dev/vg0/missing: No such file"],
  [
    "err-create-nodiskfile",
    3,
    "invalid-spec",
    "Disk vdev=xvda failed to stat: /srv/xen/missing.qcow2: No such",
  ],
  ["err-create-nofile", 3, "not-found", "Failed to read config file: /etc/xen/nope.cfg: No such file"],
  ["err-create-nokernel", 3, "invalid-spec", "failed to open file '/srv/xen/nokernel': No such file"],
  ["err-create-nomem", 3, "no-capacity", "can't allocate low memory for domain: Out of memory"],
  ["err-create-noname", 1, "invalid-spec", "Domain name must be specified."],
  ["err-create-syntax", 1, "invalid-spec", "config parsing error near `\"bad': lexical error"],
  ["err-create-toosmall", 3, "invalid-spec", "segment kernel too large (0x3a00 > 0x1000 - 0x1000 pages)"],
  ["err-destroy-dom0", 1, "unsupported", "Not destroying domain 0; use -f to force."],
  ["err-destroy-missing", 1, "not-found", "nope is an invalid domain identifier"],
  ["err-domid-missing", 1, "not-found", "Can't get domid of domain name 'nope'"],
  ["err-list-l-missing", 1, "not-found", "nope is an invalid domain identifier"],
  ["err-list-missing", 1, "not-found", "nope is an invalid domain identifier"],
  ["err-rename-dup", 1, "already-exists", 'Domain with name "Domain-0" already exists.'],
  ["err-shutdown-missing", 1, "not-found", "nope is an invalid domain identifier"],
  ["crash-shutdown", 1, "failed", "guest didn't acknowledge control request: -9. The guest hangs"],
  ["xen-create-console", 1, "not-found", "web1 is an invalid domain identifier"],
  ["xen-create-create", 3, "invalid-spec", "bootloader failed - consult logfile"],
  ["xl-block-attach-dup", 1, "already-exists", "device already exists in xenstore"],
  ["xl-block-attach-missing", 1, "invalid-spec", "Disk vdev=xvdd failed to stat: /dev/nope"],
  ["xl-block-attach-missingfile", 1, "invalid-spec", "Disk vdev=xvdd failed to stat: /srv/xen/nope.img"],
  ["xl-block-detach", 1, "failed", "unable to remove device with path /local/domain/0/backend/qdisk/1/51728"],
  ["xl-block-detach-missing", 1, "failed", "disk /libxl/1/device/vbd/268441856 does not exist"],
  ["xl-console-pvh", 1, "not-found", "pvh1 is an invalid domain identifier"],
  ["xl-create-dup", 3, "already-exists", 'Domain with name "pv2" already exists.'],
  ["xl-list-l-pvh", 1, "not-found", "pvh1 is an invalid domain identifier"],
  ["xl-mem-set-toobig", 1, "invalid-spec", "memory_dynamic_max must be less than or equal to"],
  ["xl-migrate-localhost", 1, "invalid-state", "Failed to enable logdirty: 95,22,0"],
  ["xl-network-attach-badbridge", 1, "invalid-spec", "Could not find bridge device nobr"],
  ["xl-reboot-a", 1, "failed", "guest didn't acknowledge control request: -9. The guest hangs"],
  ["xl-rename", 1, "not-found", "tiny-pv is an invalid domain identifier"],
  ["xl-rename-back", 1, "not-found", "renamed-pv is an invalid domain identifier"],
  ["xl-restore", 1, "invalid-spec", "Could not find bridge device nobr"],
  ["xl-save-c", 1, "not-found", "tiny-pv is an invalid domain identifier"],
  ["xl-v", 1, "failed", "invalid option -- '-'"],
  ["xl-vcpu-pin-bad", 1, "failed", "vcpu hard affinity map is empty"],
  ["xl-vcpu-pin-badvcpu", 1, "invalid-spec", "Setting vcpu affinity: Invalid argument"],
  ["xl-vcpu-set-toobig", 1, "invalid-spec", "Requested 2 VCPUs, however maxcpus is 1!"],
];

const stderrOf = (name: string): string => fixture(`stderr/${name}`);

describe("a program on the host that failed", () => {
  it.each(RECORDED)("as recorded in %s with status %i means %s: %s", (name, exitCode, reason, words) => {
    const error = commandFailed("starting the domain", { exitCode, stderr: stderrOf(name) });
    expect(error).toMatchObject({ reason, details: { exitCode: String(exitCode) } });
    expect(error.message).toMatch(/^starting the domain failed: /);
    expect(error.message).toContain(words);
    expect(error.message).not.toMatch(/libxl[:_]|\.c:\d+|\n/);
  });

  it("keeps all that it said as the cause", () => {
    const stderr = stderrOf("err-create-nomem");
    const { cause } = commandFailed("starting", { exitCode: 3, stderr });
    expect(cause).toBeInstanceOf(ProgramError);
    expect(cause).toMatchObject({ exitCode: 3, stderr });
  });

  it.each([
    ["dd: error writing '.a.part': No space left on device", 1, "storage-full"],
    ["qemu-img: Could not resize file: No space left on device", 1, "storage-full"],
    ["truncate: failed to truncate 'a' at 9: File too large", 1, "invalid-spec"],
    ["qemu-img: Could not open '/p/a': Could not open '/p/a': No such file or directory", 1, "not-found"],
    [
      "qemu-img: Could not open '/p/a': Failed to get \"write\" lock\nIs another process using the image [/p/a]?",
      1,
      "busy",
    ],
    ["mv: cannot move '.a.part' to 'a': Permission denied", 1, "authentication"],
    ["touch: cannot touch 'a': Read-only file system", 1, "authentication"],
    ["sh: 1: xl: not found", 127, "unsupported"],
    ["timeout: failed to run command 'xl': No such file or directory", 127, "unsupported"],
    [
      "xencall: error: Could not obtain handle on privileged command interface: No such file or directory\nlibxl: error: libxl.c:102:libxl_ctx_alloc: cannot open libxc handle: No such file or directory",
      1,
      "unsupported",
    ],
    ["libxl: error: libxl_create.c:1:x: failed to free memory for the domain", 3, "no-capacity"],
    ["PV control interface not available: external graceful shutdown not possible.", 1, "failed"],
    [
      "Rebooting domain 2\nPV control interface not available: sending ACPI reset button event.\nlibxl: error: libxl_domain.c:2207:libxl_send_trigger: Domain 2:Send trigger 'reset' failed: Function not implemented\nreboot failed (rc=-3)",
      1,
      "invalid-state",
    ],
    ["", 124, "timeout"],
    ["Shutting down domain 9", 137, "timeout"],
    ["something new", 1, "failed"],
    ["", 1, "failed"],
  ] as const)("and said '%s' with status %i means %s", (stderr, exitCode, reason) => {
    expect(commandFailed("doing it", { exitCode, stderr })).toMatchObject({ reason });
  });

  it("without a word says so", () => {
    const error = commandFailed("starting", { exitCode: 9, stderr: stderrOf("xl-create") });
    expect(error.message).toBe("starting failed: exit status 9, without a word");
  });

  it("gives a HypervisorError whatever it said", () => {
    const said = RECORDED.map(([name]) => stderrOf(name));
    expectFactsOrRefusal(
      (stderr) => commandFailed("doing it", { exitCode: 1, stderr }),
      said,
      (error) => {
        expect(error).toBeInstanceOf(HypervisorError);
        expect(error.message.length).toBeGreaterThan("doing it failed: ".length);
      },
    );
  });

  it("is not taken for a missing thing unless it is one", () => {
    expect(isNotFound(commandFailed("x", { exitCode: 1, stderr: stderrOf("err-list-missing") }))).toBe(true);
    expect(isNotFound(commandFailed("x", { exitCode: 3, stderr: stderrOf("err-create-nodisk") }))).toBe(
      false,
    );
    expect(isNotFound(new Error("not-found"))).toBe(false);
  });
});

describe("what a program says on the way", () => {
  it.each(["xl-create", "xl-reboot", "xl-save2", "xl-restore2"])("as recorded in %s is no cause", (name) => {
    expect(causeOf(stderrOf(name))).toBeNull();
  });

  it("is no cause either where more follows", () => {
    expect(causeOf(stderrOf("xl-save"))).toBe("script: Could not find bridge device nobr");
  });

  it("of the clearing up alone is better than nothing", () => {
    expect(
      causeOf("libxl: error: libxl_domain.c:1183:libxl__destroy_domid: Domain 4:Non-existant domain\n"),
    ).toBe("Non-existant domain");
  });
});
