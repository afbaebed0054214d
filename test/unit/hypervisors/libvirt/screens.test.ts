import { Duplex } from "node:stream";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { firstByte } from "../../../../src/hypervisors/first-byte.ts";
import { parseVncPort } from "../../../../src/hypervisors/libvirt/parse-graphics.ts";
import { parsePpm } from "../../../../src/hypervisors/libvirt/parse-ppm.ts";
import { readDesktopName } from "../../../../src/hypervisors/libvirt/rfb-greeting.ts";
import { fixture } from "./fixture.ts";

describe("the port of a screen", () => {
  it("is read from a running domain, and none from one that is off", () => {
    expect(parseVncPort(fixture("domain-ours-running-9.0.0"))).toBe(5900);
    expect(parseVncPort(fixture("domain-ours-9.0.0"))).toBeNull();
    expect(parseVncPort(fixture("domain-test-9.0.0"))).toBeNull();
    expect(parseVncPort("<domain/>")).toBeNull();
  });

  it.each(["x", "70000000000000000000", ""])("is no %j", (port) => {
    const xml = `<domain><devices><graphics type='vnc' port='${port}'/></devices></domain>`;
    expect(() => parseVncPort(xml)).toThrow("is not a number");
  });
});

describe("a PPM", () => {
  const picture = fc
    .record({ width: fc.integer({ min: 1, max: 9 }), height: fc.integer({ min: 1, max: 9 }) })
    .chain((size) =>
      fc.record({
        width: fc.constant(size.width),
        height: fc.constant(size.height),
        pixels: fc.uint8Array({
          minLength: size.width * size.height * 3,
          maxLength: size.width * size.height * 3,
        }),
      }),
    );

  it("is read whatever stands between its numbers", () => {
    const gap = fc.constantFrom(" ", "\n", "\t ", "\n# made by QEMU\n");
    fc.assert(
      fc.property(picture, gap, ({ width, height, pixels }, between) => {
        const header = Buffer.from(`P6${between}${width}${between}${height}${between}255\n`);
        const read = parsePpm(Buffer.concat([header, pixels]));
        expect([read.width, read.height, Buffer.from(read.pixels)]).toEqual([
          width,
          height,
          Buffer.from(pixels),
        ]);
      }),
    );
  });

  it.each([
    ["another format", "P5 1 1 255\nabc"],
    ["more than eight bits a colour", "P6 1 1 65535\nabcdef"],
    ["too few bytes", "P6 2 1 255\nabc"],
    ["no pixels", "P6 0 1 255\n"],
    ["nothing", ""],
  ])("of %s is refused", (_what, text) => {
    expect(() => parsePpm(Buffer.from(text, "latin1"))).toThrow("cannot be read");
  });
});

/** A VNC server that says these bytes, each after the client has said something; the first at once. */
function server(...answers: readonly Buffer[]): Duplex {
  const rest = [...answers];
  const say = (stream: Duplex): void => {
    const next = rest.shift();
    if (next !== undefined) stream.push(next);
  };
  const stream = new Duplex({
    read: () => undefined,
    write: (_chunk, _encoding, done) => {
      say(stream);
      done();
    },
  });
  say(stream);
  return stream;
}

function serverInit(name: string): Buffer {
  const bytes = Buffer.from(name);
  const init = Buffer.alloc(24);
  init.writeUInt32BE(bytes.length, 20);
  return Buffer.concat([init, bytes]);
}

const VERSION = Buffer.from("RFB 003.008\n");
const NONE = Buffer.from([1, 1]);
const FINE = Buffer.alloc(4);
const never = new AbortController().signal;

describe("the name of a desktop", () => {
  it("is read after the greeting, and the server is left", async () => {
    const stream = server(VERSION, NONE, FINE, serverInit("QEMU (web-1)"));
    expect(await readDesktopName(stream, never)).toBe("QEMU (web-1)");
    expect(stream.destroyed).toBe(true);
  });

  it.each([
    ["that speaks something else", [Buffer.from("SSH-2.0-OpenSSH_9")], "no RFB 3.8"],
    ["that asks for a password", [VERSION, Buffer.from([1, 2])], "asks for a password"],
    ["that refuses", [VERSION, NONE, Buffer.from([0, 0, 0, 1])], "refused"],
    ["with a name without end", [VERSION, NONE, FINE, Buffer.alloc(24, 0xff)], "too long"],
  ])("is not read from a server %s", async (_what, answers, message) => {
    const stream = server(...answers);
    await expect(readDesktopName(stream, never)).rejects.toThrow(message);
    expect(stream.destroyed).toBe(true);
  });

  it("is not waited for when nobody wants it any more", async () => {
    const abort = new AbortController();
    const reading = readDesktopName(server(VERSION), abort.signal);
    abort.abort(new Error("enough"));
    await expect(reading).rejects.toThrow("given up");
  });
});

describe("a first byte", () => {
  it("is waited for, and left to the reader", async () => {
    const stream = server(VERSION);
    await firstByte(stream, never);
    expect(String(stream.read())).toBe("RFB 003.008\n");
  });

  it("does not come from a stream that ends, fails or is given up", async () => {
    const ended = server();
    ended.push(null);
    await expect(firstByte(ended, never)).rejects.toThrow("ended before");
    const failed = server();
    failed.destroy(new Error("refused"));
    await expect(firstByte(failed, never)).rejects.toThrow();
    const abort = new AbortController();
    const waited = server();
    const waiting = firstByte(waited, abort.signal);
    abort.abort(new Error("enough"));
    await expect(waiting).rejects.toThrow("enough");
    expect(waited.destroyed).toBe(true);
  });
});
