import fc from "fast-check";
import { loadAll } from "js-yaml";
import { describe, expect, it } from "vitest";
import { createSecretBox } from "../../../src/lib/secret-box.ts";
import { NewCloudInit } from "../../../src/vms/cloud-init/cloud-init-schemas.ts";
import { conflictOf } from "../../../src/vms/cloud-init/conflicts.ts";
import { openSeed, sealSeed, seedFilesOf, shownCloudInit } from "../../../src/vms/cloud-init/seed.ts";
import { checkUserData, MAX_TEXT_BYTES, wrongNetworkConfig } from "../../../src/vms/cloud-init/user-data.ts";

const SECRET = "hunter2-kept-secret";

function reasonOf(text: string): string {
  const checked = checkUserData(text);
  return checked.ok ? "taken" : checked.reason;
}

function configOf(text: string) {
  const checked = checkUserData(text);
  return checked.ok ? checked.config : null;
}

describe("user-data", () => {
  it.each([
    ["a cloud-config", "#cloud-config\npackages: [curl]\n"],
    ["a cloud-config of comments", "#cloud-config\n# nothing yet\n"],
    ["a cloud-config alone", "#cloud-config"],
    ["a cloud-config from Windows", "#cloud-config\r\npackages:\r\n- curl\r\n"],
    ["YAML 1.1 with anchors and merges", "#cloud-config\na: &a {b: yes}\nc:\n  <<: *a\nd: !!binary aGk=\n"],
    ["a script", "#!/bin/sh\necho {[ not yaml\n"],
    ["a MIME message", 'Content-Type: multipart/mixed; boundary="x"\nMIME-Version: 1.0\n\n--x\n'],
    ["a MIME message the other way round", "MIME-Version: 1.0\nContent-Type: multipart/mixed\n"],
    ["as much as there may be", `#!/bin/sh\n${"x".repeat(MAX_TEXT_BYTES - 10)}`],
  ])("can be %s", (_what, text) => {
    expect(reasonOf(text)).toBe("taken");
  });

  it.each([
    ["nothing", "", /must begin with/],
    ["YAML without its first line", "packages: [curl]", /must begin with/],
    ["something like a cloud-config", "#cloud-configs\n", /must begin with/],
    ["a blank line first", "\n#cloud-config\n", /must begin with/],
    ["a script without a program", "#!\n", /must begin with/],
    ["broken YAML", `#cloud-config\npassword: "${SECRET}\n`, /line \d+, column \d+/],
    ["a tab", `#cloud-config\na:\n\t- ${SECRET}\n`, /line 3, column 1/],
    ["a key twice", `#cloud-config\n${SECRET}: 1\n${SECRET}: 2\n`, /line 3/],
    ["an alias of nothing", `#cloud-config\na: *${SECRET}\n`, /line 2/],
    ["a tag that cloud-init does not know", `#cloud-config\na: !${SECRET} x\n`, /line 2/],
    ["two documents", `#cloud-config\na: 1\n---\nb: ${SECRET}\n`, /one YAML document/],
    ["a list", `#cloud-config\n- ${SECRET}\n`, /a YAML mapping/],
    ["NUL", `#!/bin/sh\n\0${SECRET}`, /NUL/],
    ["half a character", `#!/bin/sh\n\ud800${SECRET}`, /UTF-8/],
    ["too much", `#!/bin/sh\n${"é".repeat(MAX_TEXT_BYTES / 2)}`, /at most 65536 bytes/],
  ])("cannot be %s; the reason tells nothing of it", (_what, text, reason) => {
    expect(reasonOf(text)).toMatch(reason);
    expect(reasonOf(text)).not.toContain(SECRET);
  });

  it("made to keep a parser busy is refused or taken, and never thrown at", () => {
    const size = MAX_TEXT_BYTES - 100;
    const laugh = ["b", "c", "d", "e", "f", "g", "h", "i"].map(
      (name, at) => `${name}: &${name} [${`*${"abcdefgh"[at]},`.repeat(9)}]\n`,
    );
    const keys = Array.from({ length: size / 16 }, (_, index) => `k${index},`).join("");
    for (const text of [
      ...["[", "- ", "? ", "a: ", "&a ", "{", "!", "|\n", "a:\n "].map((part) =>
        part.repeat(size / part.length),
      ),
      `a: &a [x]\n${laugh.join("")}`,
      `a: &a {${keys}}\n${Array.from({ length: 2000 }, (_, index) => `m${index}: {<<: *a}\n`).join("")}`,
      Array.from({ length: size / 8 }, (_, index) => `k${index}: 1\n`)
        .join("")
        .slice(0, size),
    ]) {
      expect(reasonOf(`#cloud-config\n${text}`)).toMatch(/^(taken|must be .*)$/);
    }
  });

  it("that is any text is judged without a throw", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(typeof reasonOf(`#cloud-config\n${text}`)).toBe("string");
        expect(typeof wrongNetworkConfig(text)).not.toBe("undefined");
      }),
    );
  });
});

describe("a network configuration", () => {
  it.each([
    "version: 2\nethernets: {eth0: {dhcp4: true}}\n",
    "network:\n  version: 1\n  config: []\n",
    '{"version": 2}',
  ])("%j is taken", (text) => {
    expect(wrongNetworkConfig(text)).toBeNull();
  });

  it.each([
    "",
    "version: 3",
    "version: '2'",
    "- version: 2",
    "network: 2",
    "a: [",
    "network:\n  a: 1\nversion: 2",
  ])("%j is refused", (text) => {
    expect(wrongNetworkConfig(text)).toMatch(/^must be/);
  });
});

describe("a cloud-config beside fields", () => {
  const nothing = { sshKeys: [], users: [] };
  it.each([
    ["a host name", { ...nothing, hostname: "a" }, "hostname: b", /sets hostname/],
    ["a host name and its domain", { ...nothing, hostname: "a" }, "fqdn: b.c", /sets fqdn/],
    [
      "a host name that is kept",
      { ...nothing, hostname: "a" },
      "preserve_hostname: true",
      /preserve_hostname/,
    ],
    ["users", { ...nothing, users: [1] }, "users: [default]", /one place/],
    ["no vendor-data", { ...nothing, users: [1] }, "vendor_data: {enabled: false}", /vendor_data/],
    [
      "users without the image's own",
      { ...nothing, sshKeys: ["a"] },
      "users: [{name: x}]",
      /without `default`/,
    ],
    ["no users", { ...nothing, sshKeys: ["a"] }, "users: []", /without `default`/],
    ["users as text", { ...nothing, sshKeys: ["a"] }, "users: x, y", /without `default`/],
  ])("is refused where it sets %s", (_what, asked, text, reason) => {
    expect(conflictOf(asked, configOf(`#cloud-config\n${text}\n`))).toMatch(reason);
  });

  it.each([
    ["sets a host name, and nobody else does", nothing, "hostname: b"],
    ["has users, and nothing else asks for any", nothing, "users: [{name: x}]"],
    ["keeps the image's own user", { ...nothing, sshKeys: ["a"] }, "users: [default, {name: x}]"],
    ["keeps it by name", { ...nothing, sshKeys: ["a"] }, "users: [{name: default}]"],
    ["keeps it as text", { ...nothing, sshKeys: ["a"] }, "users: x, default"],
    ["keeps it in a mapping", { ...nothing, sshKeys: ["a"] }, "users: {default: true}"],
    ["has keys of its own", { ...nothing, sshKeys: ["a"] }, "ssh_authorized_keys: [x]"],
  ])("is taken where it %s", (_what, asked, text) => {
    expect(conflictOf(asked, configOf(`#cloud-config\n${text}\n`))).toBeNull();
  });

  it("that is a script is not looked into", () => {
    expect(
      conflictOf({ hostname: "a", sshKeys: ["a"], users: [1] }, configOf("#!/bin/sh\nhostname b\n")),
    ).toBeNull();
  });
});

describe("a seed", () => {
  const vm = { id: "0192aaaa-0000-7000-8000-00000000abcd", name: "web-1" };
  const keys = new Map([
    ["ada", 'ssh-ed25519 AAAA ada: "x" #1'],
    ["ben", "ssh-ed25519 BBBB"],
  ]);
  const filesOf = (asked: object) => seedFilesOf(vm, NewCloudInit.parse(asked), keys);

  it("names the VM, and asks for nothing else where nothing else was asked for", () => {
    const files = filesOf({});
    expect(loadAll(files.metaData)).toEqual([{ "instance-id": vm.id, "local-hostname": "web-1" }]);
    expect(files).toMatchObject({ userData: "#cloud-config\n{}\n", vendorData: null, networkConfig: null });
  });

  it("gives keys to the image's own user through meta-data, and other users through vendor-data", () => {
    const users = [
      { name: "ops", sshKeys: ["ben"], sudo: true },
      { name: "web", sshKeys: [] },
    ];
    const files = filesOf({ hostname: "h.example", sshKeys: ["ada", "ben", "ada"], users });
    expect(loadAll(files.metaData)).toEqual([
      {
        "instance-id": vm.id,
        "local-hostname": "h.example",
        "public-keys": [keys.get("ada"), keys.get("ben")],
      },
    ]);
    expect(files.vendorData).toMatch(/^#cloud-config\n/);
    const common = { lock_passwd: true, shell: "/bin/bash" };
    expect(loadAll(files.vendorData ?? "")).toEqual([
      {
        users: [
          "default",
          { name: "ops", ...common, sudo: "ALL=(ALL) NOPASSWD:ALL", ssh_authorized_keys: [keys.get("ben")] },
          { name: "web", ...common, ssh_authorized_keys: [] },
        ],
      },
    ]);
  });

  it("has the client's texts as they were given", () => {
    const userData = "#!/bin/sh\r\necho ü\t\n";
    const networkConfig = "version: 2\n";
    expect(filesOf({ userData, networkConfig })).toMatchObject({ userData, networkConfig });
  });

  it("is shown without them", () => {
    const asked = NewCloudInit.parse({ userData: `#!/bin/sh\n${SECRET}\n`, sshKeys: ["ada"] });
    const shown = shownCloudInit(vm, asked);
    expect(shown).toMatchObject({ hostname: "web-1", sshKeys: ["ada"], users: [], networkConfig: null });
    expect(shown.userData).toEqual({
      sha256: expect.stringMatching(/^[0-9a-f]{64}$/) as unknown,
      sizeBytes: 30,
    });
    expect(JSON.stringify(shown)).not.toContain(SECRET);
  });

  it("is kept sealed", () => {
    const box = createSecretBox(Buffer.alloc(32, 1));
    const files = filesOf({ userData: `#!/bin/sh\n${SECRET}\n`, networkConfig: "version: 2\n" });
    const sealed = sealSeed(box, files);
    expect(Buffer.from(sealed).toString("latin1")).not.toContain(SECRET);
    expect(openSeed(box, sealed)).toEqual(files);
    expect(() => openSeed(createSecretBox(Buffer.alloc(32, 2)), sealed)).toThrow();
  });
});
