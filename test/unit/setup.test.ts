import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { browserPackages, isDebianFamily } from "../../src/setup/debian-packages.mjs";
import { libvirtdConf } from "../../src/setup/private-libvirt/configuration.mjs";
import { readNamespace } from "../../src/setup/private-libvirt/namespace-state.mjs";
import { chooseSubnet } from "../../src/setup/private-libvirt/nat-network.mjs";
import { withProgress } from "../../src/setup/progress.mjs";
import { ProgramError, run, runToEnd } from "../../src/setup/run-program.mjs";

describe("isDebianFamily", () => {
  it.each([
    ['PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n', true],
    ["ID=ubuntu\nID_LIKE=debian\n", true],
    ['ID=linuxmint\nID_LIKE="ubuntu debian"\n', true],
    ["ID=fedora\n", false],
    ['ID=rocky\nID_LIKE="rhel centos fedora"\n', false],
    ["", false],
  ])("%j: %s", (text, expected) => {
    expect(isDebianFamily(text)).toBe(expected);
  });
});

describe("browserPackages", () => {
  it("are those of Debian, for others have none of the kind", () => {
    expect(browserPackages('PRETTY_NAME="Debian GNU/Linux 12"\nID=debian\n')).toEqual([
      "chromium-headless-shell",
    ]);
    expect(browserPackages("ID=ubuntu\nID_LIKE=debian\n")).toEqual([]);
  });
});

describe("chooseSubnet", () => {
  it("takes the first free one from its start and begins again at the end", () => {
    expect(chooseSubnet([], 0)).toBe("192.168.128");
    expect(chooseSubnet(["192.168.128.7/24"], 0)).toBe("192.168.129");
    expect(chooseSubnet(["192.168.254.0/24"], 126)).toBe("192.168.128");
  });

  it("sees a wider prefix and a single address as taken", () => {
    expect(chooseSubnet(["192.168.128.0/18"], 0)).toBe("192.168.192");
    expect(chooseSubnet(["192.168.128.255"], 0)).toBe("192.168.129");
    expect(chooseSubnet(["192.168.0.0/16"], 5)).toBeUndefined();
  });

  it("never overlaps what is taken", () => {
    const third = fc.integer({ min: 0, max: 255 });
    fc.assert(
      fc.property(fc.array(third), fc.nat(), (thirds, start) => {
        const chosen = chooseSubnet(
          thirds.map((byte) => `192.168.${String(byte)}.1/24`),
          start,
        );
        if (chosen !== undefined)
          expect(thirds.map((byte) => `192.168.${String(byte)}`)).not.toContain(chosen);
      }),
    );
  });
});

describe("readNamespace", () => {
  const namespace = {
    holder: { pid: 7, startTime: "123" },
    cgroups: { version: 1, birthDirs: ["/sys/fs/cgroup/cpu/x"], dirs: ["/sys/fs/cgroup/cpu/x"] },
    ownNetwork: false,
  };

  it("reads what was written", () => {
    expect(readNamespace(JSON.stringify(namespace))).toEqual(namespace);
  });

  it("takes nothing else", () => {
    fc.assert(
      fc.property(fc.oneof(fc.json(), fc.string()), (text) => {
        expect(readNamespace(text)).toBeUndefined();
      }),
    );
    expect(readNamespace(JSON.stringify({ ...namespace, holder: { pid: "7" } }))).toBeUndefined();
    expect(readNamespace(JSON.stringify(namespace).slice(0, -5))).toBeUndefined();
  });
});

describe("libvirtdConf", () => {
  it("opens the socket to root, and to a group where one is named", () => {
    expect(libvirtdConf("u")).toContain('unix_sock_rw_perms = "0700"');
    expect(libvirtdConf("u", { group: "staff" })).toContain(
      'unix_sock_group = "staff"\nunix_sock_rw_perms = "0770"',
    );
  });

  it("listens only where told to", () => {
    expect(libvirtdConf("u")).toMatch(/listen_tcp = 0[^]*listen_tls = 0/);
    const listening = libvirtdConf("u", { listen: { address: "198.18.0.2", tcp: false, tls: true } });
    expect(listening).toMatch(/listen_tcp = 0[^]*listen_tls = 1\nlisten_addr = "198.18.0.2"/);
  });
});

describe("run", () => {
  it("returns the output, and tells what a failed program wrote", async () => {
    expect(await run("sh", ["-c", "cat; echo out"], { input: "in " })).toBe("in out\n");
    const failure = run("sh", ["-c", "echo wrong >&2; exit 3"]);
    await expect(failure).rejects.toThrow(ProgramError);
    await expect(failure).rejects.toThrow(/ended with status 3:\nwrong/);
    expect((await runToEnd("sh", ["-c", "kill -TERM $$"])).signal).toBe("SIGTERM");
    await expect(run("/nonexistent/program", [])).rejects.toThrow("ENOENT");
  });
});

describe("withProgress", () => {
  it("is silent about what is quick", async () => {
    const lines: string[] = [];
    expect(
      await withProgress(
        (line) => lines.push(line),
        "working",
        () => Promise.resolve(7),
      ),
    ).toBe(7);
    expect(lines).toEqual([]);
  });

  it("says what takes longer than a second", async () => {
    const lines: string[] = [];
    await withProgress(
      (line) => lines.push(line),
      "working",
      () => new Promise((resolve) => setTimeout(resolve, 1300)),
    );
    expect(lines[0]).toBe("working …");
    expect(lines[1]).toMatch(/^done working, \d+ s$/);
  });
});
