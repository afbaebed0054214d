import { once } from "node:events";
import { type AddressInfo, createServer, type Server } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { OpenConsoles } from "../../../../src/hypervisors/libvirt/consoles.ts";
import { DomainFactCache } from "../../../../src/hypervisors/libvirt/domain-fact-cache.ts";
import type { HostContext } from "../../../../src/hypervisors/libvirt/host-context.ts";
import { systemClock } from "../../../../src/lib/clock.ts";
import { asId, type InstallationId } from "../../../../src/lib/ids.ts";
import { call, fakeCalls } from "./fake-calls.ts";
import { fixture } from "./fixture.ts";

const uuid = "0192aaaa-0000-7000-8000-00000000abcd";
const domain = { name: "web-1-00000000abcd", uuid, id: 9 };
const local = { kind: "unix", path: "/run/libvirt/libvirt-sock" } as const;
const servers: Server[] = [];

afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

/** A VNC server of this name on a port of our own loopback. */
async function screenOf(name: string): Promise<number> {
  const server = createServer((socket) => {
    const length = String.fromCharCode(name.length);
    const answers = ["RFB 003.008\n", "\x01\x01", "\0\0\0\0", `${"\0".repeat(23)}${length}${name}`];
    const say = (): void => {
      const next = answers.shift();
      if (next !== undefined) socket.write(next, "latin1");
    };
    socket.on("error", () => undefined).on("data", say);
    say();
  });
  servers.push(server);
  await once(server.listen(0, "127.0.0.1"), "listening");
  return (server.address() as AddressInfo).port;
}

function hostWithScreenOn(port: number): HostContext {
  const xml = fixture("domain-ours-running-9.0.0").replace("port='5900'", `port='${port}'`);
  return {
    calls: fakeCalls({
      domainLookupByUuid: () => ({ domain }),
      domainGetXmlDesc: () => ({ xml }),
      domainGetState: () => ({ state: 1, reason: 1 }),
      domainHasManagedSaveImage: () => ({ result: 0 }),
    }),
    cache: new DomainFactCache(systemClock),
    target: {
      uri: "qemu:///system",
      credentials: {},
      accelerator: "auto",
      installationId: asId<InstallationId>("0192aaaa-0000-7000-8000-000000000001"),
    },
    driverType: "QEMU",
    platform: () => Promise.reject(new Error("not asked for here")),
  };
}

describe("a screen on our own loopback", () => {
  const consoles = new OpenConsoles(() => Promise.reject(new Error("no connection is needed for a screen")));

  it("is opened from its greeting on, and ends with the connection to the host", async () => {
    const host = hostWithScreenOn(await screenOf(`QEMU (${domain.name})`));
    const stream = await consoles.openVnc(host, local, uuid, call);
    expect(String(stream.read())).toBe("RFB 003.008\n");
    const closed = new Promise((resolve) => stream.once("close", resolve));
    consoles.close();
    await closed;
    expect(stream.errored).toMatchObject({ reason: "unreachable" });
  });

  it("is refused when it is another guest's, or nobody's", async () => {
    const other = hostWithScreenOn(await screenOf("QEMU (web-2-00000000abce)"));
    await expect(consoles.openVnc(other, local, uuid, call)).rejects.toMatchObject({
      reason: "unsupported",
      message: expect.stringContaining("another guest") as string,
    });
    const port = await screenOf("gone");
    for (const server of servers.splice(0)) server.close();
    await expect(consoles.openVnc(hostWithScreenOn(port), local, uuid, call)).rejects.toMatchObject({
      reason: "unsupported",
      message: expect.stringContaining("qemu+ssh://") as string,
    });
  });
});
