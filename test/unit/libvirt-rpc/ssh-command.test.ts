import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { HostKeyUnknownError } from "../../../src/libvirt-rpc/errors.ts";
import {
  explainSsh,
  offeredHostKey,
  remoteCommand,
  sshArguments,
  withoutChatter,
} from "../../../src/libvirt-rpc/transports/ssh-command.ts";

const files = { knownHosts: "/run/x/known_hosts", identity: "/run/x/identity" };

test("nothing is asked, nothing is configured and no key is taken on trust", () => {
  const args = sshArguments({ kind: "ssh", host: "n1", port: 2222, user: "root" }, files, {
    command: "true",
  });
  expect(args.slice(0, 2)).toEqual(["-F", "none"]);
  expect(args).toEqual(
    expect.arrayContaining(["BatchMode=yes", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes"]),
  );
  expect(args).toContain('UserKnownHostsFile="/run/x/known_hosts"');
  expect(args).toContain("GlobalKnownHostsFile=/dev/null");
  expect(args.slice(-3)).toEqual(["--", "n1", "true"]);
  expect(args.join(" ")).toContain("-l root -p 2222");
});

test("a port of the far side's own loopback is reached without a command there", () => {
  const args = sshArguments({ kind: "ssh", host: "n1" }, files, { loopbackPort: 5901 });
  expect(args.slice(0, 2)).toEqual(["-W", "127.0.0.1:5901"]);
  expect(args.slice(-2)).toEqual(["--", "n1"]);
  expect(args).toContain("StrictHostKeyChecking=yes");
});

test("a port that nobody listens on is not taken for a host out of reach", () => {
  const stderr = "channel 0: open failed: connect failed: Connection refused\nstdio forwarding failed\n";
  expect(explainSsh("n1", "exit code 255", stderr)).toMatchObject({
    kind: "refused",
    message: expect.stringContaining("does not let us through") as string,
  });
});

test("a per cent sign in the temporary directory is not expanded", () => {
  const args = sshArguments(
    { kind: "ssh", host: "n1" },
    { knownHosts: "/a%h/k", identity: null },
    { command: "true" },
  );
  expect(args).toContain('UserKnownHostsFile="/a%%h/k"');
});

test.each(["-oProxyCommand=id", "", "n1 -oX", "n1;id", "n1\nx", "$(id)"])("host %j is refused", (host) => {
  expect(() => sshArguments({ kind: "ssh", host }, files, { command: "true" })).toThrow("is no host name");
});

test.each(["-x", "a b", "root;id", ""])("user %j is refused", (user) => {
  expect(() => sshArguments({ kind: "ssh", host: "n1", user }, files, { command: "true" })).toThrow(
    "is no user name",
  );
});

test.each([
  "relative",
  "/run/x'; id; '",
  "/run/$(id)",
  "/run/a b",
  "/run/a,fork",
  "/run/`id`",
  "/run/a\nb",
  `/${"a".repeat(107)}`,
])("socket path %j is refused", (socketPath) => {
  expect(() => remoteCommand("qemu:///system", socketPath)).toThrow();
});

test.each([
  "qemu:///system'; id; '",
  "qemu:///system?command=id",
  "qemu+ssh://x/system",
  "",
  "qemu:///$(id)",
])("URI %j is not handed to the far side", (uri) => {
  expect(() => remoteCommand(uri, undefined)).toThrow("is no libvirt URI");
});

test.each(["/run/libvirt/libvirt-sock", "/tmp/rig-1.x/run/libvirt-sock"])(
  "what is run for %j is a command of sh",
  (path) => {
    const command = remoteCommand("qemu:///system", path);
    expect(() => execFileSync("sh", ["-n", "-c", command])).not.toThrow();
    expect(command).toContain(`UNIX-CONNECT:${path}`);
    expect(remoteCommand("qemu:///system", undefined)).toBe("virt-ssh-helper 'qemu:///system'");
  },
);

const UNKNOWN = [
  "OpenSSH_9.2p1 Debian-2, OpenSSL 3.0.11",
  "debug1: Server host key: ssh-ed25519 SHA256:abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG",
  "No ED25519 host key is known for n1 and you have requested strict checking.\r",
  "Host key verification failed.\r",
  "",
].join("\n");

test("an unknown host key is told with what the host showed", () => {
  const error = explainSsh("n1", "exit code 255", UNKNOWN);
  expect(error).toBeInstanceOf(HostKeyUnknownError);
  expect(error).toMatchObject({
    kind: "host-key-unknown",
    changed: false,
    offered: { algorithm: "ssh-ed25519", fingerprint: "SHA256:abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG" },
  });
  expect(error.message).toContain("SHA256:abcdefgh");
});

test("a host key that is not the known one is told apart", () => {
  const changed = `@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\n${UNKNOWN}`;
  expect(explainSsh("n1", "exit code 255", changed)).toMatchObject({
    kind: "host-key-unknown",
    changed: true,
  });
});

test.each([
  ["root@n1: Permission denied (publickey).", "auth"],
  ["ssh: connect to host n1 port 22: Connection refused", "refused"],
  ["ssh: Could not resolve hostname n1: Name or service not known", "refused"],
  ["ssh: connect to host n1 port 22: Connection timed out", "timeout"],
  ["sh: 1: virt-ssh-helper: not found", "closed"],
])("%j means %s", (line, kind) => {
  const error = explainSsh("n1", "exit code 1", `debug1: noise\n${line}\n`);
  expect(error).toMatchObject({ kind });
  expect(error.message).toContain(line);
  expect(error.message).not.toContain("noise");
});

test("only what -v adds is left out", () => {
  expect(withoutChatter("debug1: x\nBanner of the host\nTransferred: sent 1\n")).toBe("Banner of the host");
  const command = "debug1: Sending command: one line\nand another\r\nTimeout, server n1 not responding.\r\n";
  expect(withoutChatter(`Banner\n${command}`)).toBe("Banner\nTimeout, server n1 not responding.");
  expect(offeredHostKey("nothing of the kind")).toBeNull();
});
