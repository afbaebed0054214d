import { generateKeyPairSync } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parsePublicKey, publicKeyLine } from "../../../src/ssh-keys/parse-public-key.ts";

/** Made by ssh-keygen (OpenSSH 9.2), with the fingerprints that it shows. */
const KEYS = {
  ed25519: [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOrkce8nTqM1B/P9lp7AuBljKLFTml97ssIrWs3E2g/p ada@ed25519-256",
    "SHA256:yXT1k2grxo7w22mv6pcX08ndLHdxbnnZFme6RKAyB68",
  ],
  rsa: [
    "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQCED/3nRAAj8LthUZFXfJF0jeRz4Cl95vsynLxp3L7/6jJWnXXtWJ0ZdggYRElc8/HMWngIfE6VQlxFQf+tMEIJgcwpdyYDZd6jOeTxifj/JSGJZfrTnQypwKratQ2VdeP6aWY7Q0mrAC+Uc5+9cT4tAwD+7YIw8Wo5gO0KuFL1DUNyi9HQW1Z1saERLzYOzKMPKGzdd09OWbpF489kD97Xz9H+I3CMceJ+PcLQqQnCf/ngYdNHVM/lQ96yuG5epfeMrV8w9iT6XVPyuAar8o2YXuM/jzso/mzS6nCJI4qml8MpbapLu7chzyT8wnWS1MQky1dYOE/bJm7nK0kEeyrL ada@rsa-2048",
    "SHA256:/A6ILTTTCfTcQT8aKFCWCVpVAMu0wVDJY4DBPdImzj8",
  ],
  nistp256: [
    "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBCvn5NPMfBGmLa+bmZkMyEbdj9Cc9EhwIdQWH3zmVyMTG7Ta4P7KNdbFeewvQ2tkJQ0xc9Y7lieg/07wo3ve//U= ada@ecdsa-256",
    "SHA256:FsbQYuohMwdogoWzeZphT04s6w2q4bwXU8n+rWKf27M",
  ],
  nistp384: [
    "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBC8989gUi8jt2JlRzLgD0TqSPxw2q3oFELoNE6x8jiZxyAMdTDh83Tqo+W84BN9eORS2Ao1X+22/NwhS2qEmf88Ku/bK/7Mu4xpIHexarX3iBsfe/1B54IpnwIV4ghnpAg== ada@ecdsa-384",
    "SHA256:VQAgzfeIHxUeJUmAnN+p/KUTQgDbDYuWW3KVBb3OWE4",
  ],
  nistp521: [
    "ecdsa-sha2-nistp521 AAAAE2VjZHNhLXNoYTItbmlzdHA1MjEAAAAIbmlzdHA1MjEAAACFBAEjwkiua8x1Gy1Cjs+7b5FxIHehDAhKPr0TdypRMAO43Ec5e64mRcVsUJ8/1w/ZcYQEzL45oRkHNG53IOWUQ0xR1gCKgX/rtJLFHqW+ruh/RYqobeGBsaz94yQjRAnpjrSo5E+3adg28akix2oolfoKzx9wu6lbx5GNxVkyVGT/1T6+aQ== ada@ecdsa-521",
    "SHA256:RTC411qCuk00vC9K3oRGZ0nj/MIKWYEkhr2+ie0q2Ew",
  ],
} as const;
const SHORT_RSA =
  "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQCr00lCfvPV16GcH3QjM1uW2Df/TLLuk4bIgx6WbX2t5KC1lhy7Mo64/IMBbI9+nYiNJmZLAfOZZFHWprAygidM7LuKLZaWoR7mZJjrYa62CDusMa1wtsP4l1DuKCYb0ZiWmlH9dnGbQdG4Wfbis4Zm+E/UPQJaNa/wUvgRDFdUZw== ada@rsa-1024";
const ED25519 = KEYS.ed25519[0];

function field(bytes: Uint8Array | string): Buffer {
  const content = Buffer.from(bytes);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(content.length);
  return Buffer.concat([length, content]);
}

function line(type: string, ...fields: readonly (Uint8Array | string)[]): string {
  return `${type} ${Buffer.concat(fields.map(field)).toString("base64")} made@here`;
}

function reasonOf(text: string): string {
  const parsed = parsePublicKey(text);
  return parsed.ok ? "taken" : parsed.reason;
}

describe("a public key", () => {
  it.each(Object.entries(KEYS))("of type %s is read as ssh-keygen reads it", (_type, [text, fingerprint]) => {
    const parsed = parsePublicKey(text);
    expect(parsed).toMatchObject({ ok: true, key: { fingerprint } });
    if (parsed.ok) expect(publicKeyLine(parsed.key)).toBe(text);
  });

  it("may have blanks around it, a comment of several words, or none", () => {
    const [type = "", base64 = ""] = ED25519.split(" ");
    const keyOf = (text: string) => {
      const parsed = parsePublicKey(text);
      return parsed.ok ? publicKeyLine(parsed.key) : parsed.reason;
    };
    expect(keyOf(`  ${type}\t${base64}  two  words \n`)).toBe(`${type} ${base64} two  words`);
    expect(keyOf(`${type} ${base64}\r\n`)).toBe(`${type} ${base64}`);
  });

  it("of a security key has an application", () => {
    const point = Buffer.concat([Buffer.of(4), Buffer.alloc(64, 1)]);
    const ed = "sk-ssh-ed25519@openssh.com";
    const ec = "sk-ecdsa-sha2-nistp256@openssh.com";
    expect(reasonOf(line(ed, ed, Buffer.alloc(32), "ssh:"))).toBe("taken");
    expect(reasonOf(line(ec, ec, "nistp256", point, "ssh:"))).toBe("taken");
    expect(reasonOf(line(ed, ed, Buffer.alloc(32)))).toMatch(/all parts/);
    expect(reasonOf(line(ec, ec, "nistp256", point, ""))).toMatch(/all parts/);
  });

  it("holds what its type says, whatever the bytes are", () => {
    const bytes = fc.uint8Array({ minLength: 32, maxLength: 32 });
    fc.assert(
      fc.property(bytes, (key) => {
        expect(reasonOf(line("ssh-ed25519", "ssh-ed25519", key))).toBe("taken");
        expect(reasonOf(line("ssh-ed25519", "ssh-ed25519", key.subarray(1)))).toMatch(/all parts/);
        expect(reasonOf(line("ssh-ed25519", "ssh-ed25519", key, "more"))).toMatch(/must end/);
      }),
    );
  });

  it.each([3072, 4096])("of %i bits RSA is taken", (modulusLength) => {
    const { publicKey } = generateKeyPairSync("rsa", { modulusLength });
    const { n = "", e = "" } = publicKey.export({ format: "jwk" });
    const modulus = Buffer.concat([Buffer.of(0), Buffer.from(n, "base64url")]);
    expect(reasonOf(line("ssh-rsa", "ssh-rsa", Buffer.from(e, "base64url"), modulus))).toBe("taken");
  });
});

describe("what is no public key", () => {
  const [type = "", base64 = ""] = ED25519.split(" ");
  const modulus = Buffer.concat([Buffer.of(0), Buffer.alloc(256, 0xff)]);
  it.each([
    ["nothing", "", /must begin with its type/],
    ["a comment without end", `${ED25519} ${"x".repeat(8192)}`, /at most 8192 characters/],
    ["a type alone", type, /must begin with its type/],
    ["options before it", `command="id" ${ED25519}`, /without options/],
    ["an option before it", `no-pty ${ED25519}`, /without options/],
    [
      "a private key",
      "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blb\n-----END OPENSSH PRIVATE KEY-----",
      /private one/,
    ],
    ["two keys", `${ED25519}\n${ED25519}`, /one line/],
    ["a control character", `${ED25519}\u0007`, /control characters/],
    ["a NUL in the comment", `${ED25519}\0x`, /control characters/],
    ["a certificate", `ecdsa-sha2-nistp256-cert-v01@openssh.com ${base64}`, /must begin with its type/],
    ["DSA", `ssh-dss ${base64}`, /must begin with its type/],
    ["a name that every object has", `constructor ${base64}`, /must begin with its type/],
    ["another type before than in the bytes", `ecdsa-sha2-nistp256 ${base64}`, /same type/],
    ["other text for base64", `${type} not-base64!`, /base64/],
    ["base64 without its padding", KEYS.nistp256[0].replace("= ", " "), /base64/],
    ["base64 cut off", `${type} ${base64.slice(0, -8)}`, /all parts/],
    [
      "a curve of another name",
      line("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256", "nistp384", Buffer.alloc(65, 4)),
      /all parts/,
    ],
    [
      "a compressed point",
      line("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256", "nistp256", Buffer.alloc(65, 2)),
      /all parts/,
    ],
    ["a short RSA key", SHORT_RSA, /this RSA key has 1024/],
    [
      "an endless RSA key",
      line("ssh-rsa", "ssh-rsa", Buffer.of(3), Buffer.alloc(2049, 0x7f)),
      /this RSA key has 16391/,
    ],
    ["a negative modulus", line("ssh-rsa", "ssh-rsa", Buffer.of(3), modulus.subarray(1)), /all parts/],
    [
      "a modulus with zeros before it",
      line("ssh-rsa", "ssh-rsa", Buffer.of(3), Buffer.concat([Buffer.of(0), modulus])),
      /all parts/,
    ],
    ["an exponent of nothing", line("ssh-rsa", "ssh-rsa", "", modulus), /all parts/],
  ])("%s is refused, without a word of it", (_what, text, reason) => {
    expect(reasonOf(text)).toMatch(reason);
    if (base64 !== "" && text.includes(base64)) expect(reasonOf(text)).not.toContain(base64.slice(0, 20));
  });

  it("is refused and never thrown at, wherever a key is cut or changed", () => {
    const bytes = Buffer.from(base64, "base64");
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), fc.nat(255), (at, value) => {
        const cut = `${type} ${bytes.subarray(0, at).toString("base64")}`;
        expect(reasonOf(cut)).not.toBe("taken");
        const changed = Buffer.from(bytes);
        changed[at] = value;
        // The last 32 bytes are the key itself, and any of them is one.
        const isTaken = reasonOf(`${type} ${changed.toString("base64")}`) === "taken";
        expect(isTaken).toBe(at >= bytes.length - 32 || value === bytes[at]);
      }),
    );
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: "binary" }), fc.string()), (text) => {
        expect(reasonOf(text)).not.toBe("taken");
      }),
    );
  });
});
