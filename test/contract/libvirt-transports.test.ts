import { describe, expect, it } from "vitest";
import type { HostTarget } from "../../src/hypervisors/hypervisor.ts";
import { libvirtDriver } from "../../src/hypervisors/libvirt/driver.ts";
import { call } from "./libvirt-qemu-world.ts";
import { LibvirtScene, there } from "./libvirt-scene.ts";

// What the libvirt driver does beside the contract, over a real libvirtd and QEMU.

const scene = new LibvirtScene({ ssh: true, tls: true, tcp: true });

describe("transports", () => {
  const remote = (uri: string | undefined, credentials: HostTarget["credentials"]): HostTarget => ({
    ...scene.target,
    uri: uri ?? "",
    credentials,
  });
  const ssh = () => there(scene.host.credentials.ssh);
  const tls = () => there(scene.host.credentials.tls);

  it.each(["ssh", "tls", "tcp"] as const)(
    "%s drives the same host, changes and streams included",
    async (kind) => {
      const targets = {
        ssh: () => remote(scene.host.sshUri, { ssh: ssh() }),
        tls: () => remote(scene.host.tlsUri, { tls: tls() }),
        tcp: () => remote(scene.host.tcpUri, {}),
      };
      const over = await scene.connectTo(targets[kind]());
      // A screen is on the host's own loopback, which only ssh leads to.
      const facts = await scene.connection.probe(call);
      const guestTypes = facts.guestTypes.map(({ guestType, capabilities }) => ({
        guestType,
        capabilities: capabilities.filter((ability) => kind === "ssh" || ability !== "vnc"),
      }));
      expect(await over.probe(call)).toEqual({ ...facts, guestTypes });
      const spec = await scene.define();
      await over.startDomain(spec.uuid, call);
      expect(await over.observeDomain(spec.uuid, call)).toMatchObject({ power: "running" });
      await over.forceOffDomain(spec.uuid, call);
      await scene.writeLog(spec, "", `over ${kind}`);
      expect(await scene.readLog(spec, over)).toBe(`over ${kind}`);
    },
  );

  it("an unknown ssh host key is refused with its fingerprint", async () => {
    const { privateKey } = ssh();
    const stranger = libvirtDriver.connect(remote(scene.host.sshUri, { ssh: { privateKey } }), call);
    await expect(stranger).rejects.toMatchObject({
      reason: "host-key-unknown",
      details: { fingerprint: expect.stringMatching(/^SHA256:/) as string, changed: "false" },
    });
  });

  it("TLS without certificates, or with those of another CA, is not let in", async () => {
    await expect(libvirtDriver.connect(remote(scene.host.tlsUri, {}), call)).rejects.toMatchObject({
      reason: "authentication",
    });
    const wrong = { ...tls(), caCertificate: tls().clientCertificate };
    await expect(
      libvirtDriver.connect(remote(scene.host.tlsUri, { tls: wrong }), call),
    ).rejects.toMatchObject({
      reason: "authentication",
    });
  });

  it("a socket nobody listens at is unreachable, and an odd URI is refused", async () => {
    const nowhere = remote("qemu+unix:///system?socket=/nowhere/sock", {});
    await expect(libvirtDriver.connect(nowhere, call)).rejects.toMatchObject({ reason: "unreachable" });
    const odd = remote("qemu:///session", {});
    await expect(libvirtDriver.connect(odd, call)).rejects.toMatchObject({ reason: "invalid-spec" });
  });

  it("a host without KVM refuses guests that must have it", async () => {
    const wanting = await scene.connectTo({ ...scene.target, accelerator: "kvm" });
    await expect(wanting.probe(call)).rejects.toMatchObject({ reason: "unsupported" });
  });
});
