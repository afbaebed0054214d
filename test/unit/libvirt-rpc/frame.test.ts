import fc from "fast-check";
import { expect, test } from "vitest";
import {
  decodeFrame,
  encodeFrame,
  encodeFrameHead,
  FRAME_MAX_BYTES,
  FrameSplitter,
} from "../../../src/libvirt-rpc/frame.ts";
import { XdrError } from "../../../src/libvirt-rpc/xdr.ts";

const header = { program: 0x2000_8086, procedure: 212, type: 0, serial: 7, status: 0 };

function frameOf(body: Uint8Array): Buffer {
  return encodeFrame(header, (w) => {
    w.raw(body);
  });
}

const frames = fc.array(
  fc.uint8Array({ maxLength: 200 }).map((body) => frameOf(body)),
  { minLength: 1, maxLength: 8 },
);

test("a frame reads back as it was written", () => {
  const message = decodeFrame(frameOf(Buffer.from("body")));
  expect(message).toEqual({ ...header, body: Buffer.from("body") });
});

test("a frame is laid out as the protocol says", () => {
  expect(frameOf(Buffer.from("00ff", "hex")).toString("hex")).toBe(
    "0000001e" + "20008086" + "00000001" + "000000d4" + "00000000" + "00000007" + "00000000" + "00ff",
  );
});

test("frames come out whole and in order, wherever the bytes were split", () => {
  fc.assert(
    fc.property(frames, fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1 }), (sent, sizes) => {
      const bytes = Buffer.concat(sent);
      const splitter = new FrameSplitter();
      const received: Buffer[] = [];
      for (let at = 0, i = 0; at < bytes.length; i++) {
        const size = sizes[i % sizes.length] ?? 1;
        received.push(...splitter.push(bytes.subarray(at, at + size)));
        at += size;
      }
      expect(received).toEqual(sent);
    }),
  );
});

test("frames survive being sent byte by byte", () => {
  const sent = [frameOf(Buffer.from("one")), frameOf(Buffer.alloc(0)), frameOf(Buffer.from("three"))];
  const splitter = new FrameSplitter();
  const received = [...Buffer.concat(sent)].flatMap((byte) => splitter.push(Buffer.from([byte])));
  expect(received).toEqual(sent);
});

test.each([0, 1, 27, FRAME_MAX_BYTES + 1, 0xffff_ffff])("a frame of %d bytes is refused", (length) => {
  const word = Buffer.alloc(28);
  word.writeUInt32BE(length);
  expect(() => new FrameSplitter().push(word)).toThrow(XdrError);
  const splitter = new FrameSplitter();
  splitter.push(word.subarray(0, 2));
  expect(() => splitter.push(word.subarray(2))).toThrow(XdrError);
});

test("a large frame in many pieces is assembled into one buffer, copying each byte once", () => {
  const frame = frameOf(Buffer.alloc(8_000_000, 1));
  const splitter = new FrameSplitter();
  let copied = 0;
  const received: Buffer[] = [];
  for (let at = 0; at < frame.length; at += 1_000) {
    const piece = Buffer.from(frame.subarray(at, at + 1_000));
    const copy = piece.copy.bind(piece);
    piece.copy = (...args) => {
      const bytes = copy(...args);
      copied += bytes;
      return bytes;
    };
    received.push(...splitter.push(piece));
  }
  expect(received).toEqual([frame]);
  expect(copied).toBe(frame.length);
});

test("random bytes give frames or are refused", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 100 })), (chunks) => {
      const splitter = new FrameSplitter();
      try {
        for (const chunk of chunks) for (const frame of splitter.push(Buffer.from(chunk))) decodeFrame(frame);
      } catch (error) {
        expect(error).toBeInstanceOf(XdrError);
      }
    }),
  );
});

test("another version of the protocol is refused", () => {
  const frame = frameOf(Buffer.alloc(0));
  frame.writeUInt32BE(2, 8);
  expect(() => decodeFrame(frame)).toThrow("version 2");
});

test("neither a frame nor a head is made for more than the protocol's bound", () => {
  expect(() => encodeFrameHead(header, FRAME_MAX_BYTES)).toThrow(XdrError);
  expect(() => frameOf(Buffer.alloc(FRAME_MAX_BYTES))).toThrow(XdrError);
});
