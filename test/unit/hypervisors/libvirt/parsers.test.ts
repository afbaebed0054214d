import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { HypervisorError } from "../../../../src/hypervisors/hypervisor.ts";
import { parseCapabilities } from "../../../../src/hypervisors/libvirt/parse-capabilities.ts";
import { parseDomain } from "../../../../src/hypervisors/libvirt/parse-domain.ts";
import { parseDomainCapabilities } from "../../../../src/hypervisors/libvirt/parse-domain-capabilities.ts";
import { parseNetwork } from "../../../../src/hypervisors/libvirt/parse-network.ts";
import { isDirectoryPool, parsePool } from "../../../../src/hypervisors/libvirt/parse-pool.ts";
import { parseVolume } from "../../../../src/hypervisors/libvirt/parse-volume.ts";
import { fixture } from "./fixture.ts";

describe("capabilities", () => {
  it("of QEMU tell the machine and its guests", () => {
    const found = parseCapabilities(fixture("capabilities-qemu-9.0.0"));
    expect(found).toMatchObject({
      hostUuid: "11ff6064-ac7f-4155-a4ef-f38d15a257fd",
      architecture: "x86_64",
      cpuModel: "kvm64",
      topology: { sockets: 1, coresPerSocket: 2, threadsPerCore: 1 },
      numaCells: [{ id: 0, cpus: [0, 1] }],
    });
    expect(found.guests).toContainEqual({ osType: "hvm", architecture: "x86_64", domainTypes: ["qemu"] });
  });

  it("of the mock tell two cells, and no UUID", () => {
    expect(parseCapabilities(fixture("capabilities-test-9.0.0"))).toEqual({
      hostUuid: null,
      architecture: "i686",
      cpuModel: null,
      topology: { sockets: 2, coresPerSocket: 8, threadsPerCore: 1 },
      numaCells: [
        { id: 0, memoryMib: 2048, cpus: [0, 1, 2, 3, 4, 5, 6, 7] },
        { id: 1, memoryMib: 4096, cpus: [8, 9, 10, 11, 12, 13, 14, 15] },
      ],
      guests: [
        { osType: "hvm", architecture: "i686", domainTypes: ["test"] },
        { osType: "xen", architecture: "i686", domainTypes: ["test"] },
      ],
    });
  });

  it("count the threads of a core, cores of all dies, and a cell without memory", () => {
    const cpu = (id: number, socket: number, die: number, core: number) =>
      `<cpu id='${id}' socket_id='${socket}' die_id='${die}' core_id='${core}'/>`;
    const cpus = [0, 1].flatMap((socket) =>
      [0, 1].flatMap((die) => [0, 1].map((thread) => cpu(socket * 4 + die * 2 + thread, socket, die, 0))),
    );
    const xml = `<capabilities><host><cpu><arch>x86_64</arch></cpu><topology><cells num='1'><cell id='0'><cpus>${cpus.join("")}</cpus></cell></cells></topology></host></capabilities>`;
    expect(parseCapabilities(xml)).toMatchObject({
      topology: { sockets: 2, coresPerSocket: 2, threadsPerCore: 2 },
      numaCells: [{ memoryMib: 0, cpus: [0, 1, 2, 3, 4, 5, 6, 7] }],
    });
  });

  it("of a machine that hides its topology tell none", () => {
    const xml = `<capabilities><host><cpu><arch>x86_64</arch></cpu><topology><cells><cell id='0'><cpus><cpu id='0'/></cpus></cell></cells></topology></host></capabilities>`;
    expect(parseCapabilities(xml).topology).toBeNull();
  });
});

describe("domain capabilities", () => {
  it("without acceleration tell the modes and models of CPUs", () => {
    const found = parseDomainCapabilities(fixture("domain-capabilities-tcg-9.0.0"));
    expect(found).toMatchObject({ domainType: "qemu", machine: "pc-q35-7.2" });
    expect([...found.cpuModes]).toEqual(["maximum", "host-model", "custom"]);
    expect(found.usableCpuModels.has("Westmere")).toBe(true);
    expect(found.usableCpuModels.has("Skylake-Server")).toBe(false);
  });

  it("tell whether there is UEFI", () => {
    const without = fixture("domain-capabilities-tcg-9.0.0");
    const having = without.replace(
      "<enum name='firmware'/>",
      "<enum name='firmware'><value>bios</value><value>efi</value></enum>",
    );
    expect([without, having].map((xml) => parseDomainCapabilities(xml).hasUefi)).toEqual([false, true]);
  });
});

describe("a domain", () => {
  const ours = {
    installationId: "0192aaaa-0000-7000-8000-000000000001",
    vmId: "0192aaaa-0000-7000-8000-00000000abcd",
    cpuCount: 2,
    memoryMib: 256,
  };

  it.each(["domain-ours-9.0.0", "domain-ours-running-9.0.0"])("of ours (%s) carries our mark", (name) => {
    expect(parseDomain(fixture(name))).toEqual(ours);
  });

  it("of the mock carries none, and tells the most memory it may take", () => {
    expect(parseDomain(fixture("domain-test-9.0.0"))).toEqual({
      installationId: null,
      vmId: null,
      cpuCount: 2,
      memoryMib: 8192,
    });
  });

  const domain = (metadata: string, vcpu = "<vcpu>4</vcpu>") =>
    `<domain><metadata>${metadata}</metadata><memory>1048577</memory>${vcpu}</domain>`;
  const uri = "https://drover.invalid/xmlns/domain/1";

  it.each([
    [`<vm xmlns="${uri}" installation="i" id="v"/>`, "i"],
    [`<other:vm xmlns:other="${uri}" installation="i" id="v"/>`, "i"],
    [`<drover:vm xmlns:drover="https://elsewhere.invalid" installation="i" id="v"/>`, null],
    [`<drover:host xmlns:drover="${uri}" installation="i" id="v"/>`, null],
    [`<vm installation="i" id="v"/>`, null],
    [`<a><vm xmlns="${uri}" installation="i" id="v"/></a>`, null],
  ])("with the metadata %s belongs to %s", (metadata, installationId) => {
    expect(parseDomain(domain(metadata)).installationId).toBe(installationId);
  });

  it("uses the CPUs that are plugged in, and its memory rounded up", () => {
    expect(parseDomain(domain("", "<vcpu current='3'>8</vcpu>"))).toMatchObject({
      cpuCount: 3,
      memoryMib: 1025,
    });
  });
});

describe("a network", () => {
  it.each([
    ["network-nat-9.0.0", { name: "default", bridge: "virbr0", mode: "nat" }],
    ["network-isolated-9.0.0", { name: "iso", bridge: "virbr9", mode: "isolated" }],
    ["network-bridge-9.0.0", { name: "lan", bridge: "br0", mode: "bridge" }],
  ])("%s is read", (name, expected) => {
    expect(parseNetwork(fixture(name))).toMatchObject(expected);
  });

  it("that forwards without saying how is NAT", () => {
    const xml = "<network><name>a</name><forward/></network>";
    expect(parseNetwork(xml)).toEqual({ name: "a", uuid: null, bridge: null, mode: "nat" });
  });
});

describe("a pool", () => {
  it("of a directory is read", () => {
    const pool = parsePool(fixture("pool-dir-9.0.0"));
    expect(pool).toEqual({
      name: "default",
      uuid: "716837e4-85cb-4839-8f39-4b2f92dc3939",
      type: "dir",
      path: "/var/lib/libvirt/images",
      capacityBytes: 270_553_174_016,
      availableBytes: 243_536_109_568,
    });
    expect(isDirectoryPool(pool)).toBe(true);
  });

  it("of a volume group has a path, but is no directory", () => {
    const pool = parsePool(fixture("pool-logical-inactive-9.0.0"));
    expect(pool).toMatchObject({ type: "logical", path: "/dev/vg0", capacityBytes: 0 });
    expect(isDirectoryPool(pool)).toBe(false);
  });

  it("without a place in the file system has no path; a size beyond numbers is cut", () => {
    const pool = parsePool(
      "<pool type='rbd'><name>r</name><capacity unit='TiB'>9000000000000000000</capacity></pool>",
    );
    expect(pool).toMatchObject({ path: null, capacityBytes: Number.MAX_SAFE_INTEGER, availableBytes: 0 });
    expect(isDirectoryPool(pool)).toBe(false);
  });
});

describe("a volume", () => {
  it("of qcow2 tells what the guest sees, and what it takes", () => {
    expect(parseVolume(fixture("volume-qcow2-9.0.0"))).toEqual({
      name: "tiny-base.qcow2",
      type: "file",
      path: "/var/lib/libvirt/images/tiny-base.qcow2",
      capacityBytes: 268_435_456,
      allocationBytes: 20_045_824,
      format: "qcow2",
    });
  });
});

const PARSERS: readonly (readonly [string, (xml: string) => unknown, readonly string[]])[] = [
  ["capabilities", parseCapabilities, ["capabilities-qemu-9.0.0", "capabilities-test-9.0.0"]],
  ["domain capabilities", parseDomainCapabilities, ["domain-capabilities-tcg-9.0.0"]],
  ["domain", parseDomain, ["domain-ours-running-9.0.0", "domain-test-9.0.0"]],
  ["network", parseNetwork, ["network-nat-9.0.0", "network-isolated-9.0.0"]],
  ["pool", parsePool, ["pool-dir-9.0.0", "pool-logical-inactive-9.0.0"]],
  ["volume", parseVolume, ["volume-qcow2-9.0.0"]],
];

describe.each(PARSERS)("mangled input of the %s parser", (_name, parse, names) => {
  const documents = names.map(fixture);
  /** A document with pieces cut out and put in. */
  const mangled = fc
    .tuple(
      fc.constantFrom(...documents),
      fc.array(
        fc.record({
          at: fc.double({ min: 0, max: 1, noNaN: true }),
          cut: fc.nat(60),
          put: fc.oneof(fc.string({ maxLength: 5 }), fc.constantFrom("<", "</a>", "-1", "1e9", "&#0;", "'")),
        }),
        { minLength: 1, maxLength: 4 },
      ),
    )
    .map(([document, edits]) =>
      edits.reduce((text, { at, cut, put }) => {
        const from = Math.floor(at * text.length);
        return text.slice(0, from) + put + text.slice(from + cut);
      }, document),
    );

  it("gives facts or a HypervisorError", () => {
    fc.assert(
      fc.property(fc.oneof(mangled, fc.string()), (text) => {
        try {
          expect(parse(text)).toBeTypeOf("object");
        } catch (error) {
          expect(error).toBeInstanceOf(HypervisorError);
          expect(error).toMatchObject({ reason: "failed", retryable: false });
        }
      }),
      { numRuns: 300 },
    );
  });

  it("refuses another document", () => {
    expect(() => parse("<other/>")).toThrow("its root is <other>");
  });
});
