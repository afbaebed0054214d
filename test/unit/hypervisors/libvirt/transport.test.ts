import { describe, expect, it } from "vitest";
import { HypervisorError } from "../../../../src/hypervisors/hypervisor.ts";
import { transportFor } from "../../../../src/hypervisors/libvirt/transport.ts";

const nothingThere = () => false;

describe("the way to a daemon", () => {
  it.each([
    ["auto", true, "/run/libvirt/virtqemud-sock"],
    ["auto", false, "/run/libvirt/libvirt-sock"],
    ["direct", false, "/run/libvirt/virtqemud-sock"],
    ["legacy", true, "/run/libvirt/libvirt-sock"],
  ] as const)("on this machine in mode %s (virtqemud there: %s) is %s", (mode, isThere, path) => {
    expect(transportFor({ kind: "unix", socket: null, mode }, {}, () => isThere)).toEqual({
      kind: "unix",
      path,
    });
  });

  it("by a socket of one's own is that socket", () => {
    const endpoint = { kind: "unix", socket: "/run/s", mode: "auto" } as const;
    expect(transportFor(endpoint, {}, nothingThere)).toEqual({ kind: "unix", path: "/run/s" });
  });

  it("over TLS takes the given certificates, and is refused without", () => {
    const endpoint = { kind: "tls", host: "n1", port: 16514 } as const;
    const tls = { caCertificate: "CA", clientCertificate: "CERT", clientKey: "KEY" };
    expect(transportFor(endpoint, { tls })).toEqual({
      kind: "tls",
      host: "n1",
      port: 16514,
      ca: "CA",
      cert: "CERT",
      key: "KEY",
    });
    expect(() => transportFor(endpoint, {})).toThrow(HypervisorError);
    expect(() => transportFor(endpoint, {})).toThrow("credentials.tls");
  });

  it("over TCP needs nothing", () => {
    const endpoint = { kind: "tcp", host: "n1", port: 1 } as const;
    expect(transportFor(endpoint, {})).toEqual(endpoint);
  });

  it("over ssh takes key and known hosts, and leaves the socket to the far side unless it is said", () => {
    const endpoint = { kind: "ssh", user: "root", host: "n1", port: 22, socket: null, mode: "auto" } as const;
    const ssh = { privateKey: "KEY", knownHosts: "n1 ssh-ed25519 AAAA" };
    expect(transportFor(endpoint, { ssh })).toEqual({
      kind: "ssh",
      host: "n1",
      port: 22,
      user: "root",
      privateKey: "KEY",
      knownHosts: "n1 ssh-ed25519 AAAA",
    });
    const bare = { ...endpoint, user: null, port: null };
    expect(transportFor({ ...bare, socket: "/run/s" }, {})).toEqual({
      kind: "ssh",
      host: "n1",
      socketPath: "/run/s",
    });
    expect(transportFor({ ...bare, mode: "legacy" }, {})).toMatchObject({
      socketPath: "/run/libvirt/libvirt-sock",
    });
  });
});
