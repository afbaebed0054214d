import { expect, test } from "vitest";
import { array, chars, int, nullable, struct, uchar } from "../../../src/libvirt-rpc/codec.ts";
import { XdrError, XdrReader, XdrWriter } from "../../../src/libvirt-rpc/xdr.ts";

function written(write: (w: XdrWriter) => void): string {
  const w = new XdrWriter(1);
  write(w);
  return w.bytes().toString("hex");
}

test.each([-1, 2 ** 32, 2 ** 32 + 5, 1.5, Number.NaN, Number.POSITIVE_INFINITY])(
  "%d is refused as an unsigned 32-bit integer, not wrapped",
  (value) => {
    expect(() =>
      written((w) => {
        w.uint(value);
      }),
    ).toThrow(XdrError);
  },
);

test.each([-(2 ** 31) - 1, 2 ** 31, 0.1])("%d is refused as a 32-bit integer", (value) => {
  expect(() =>
    written((w) => {
      w.int(value);
    }),
  ).toThrow(XdrError);
});

test("64-bit integers are refused beyond their range", () => {
  expect(() =>
    written((w) => {
      w.uhyper(2n ** 64n);
    }),
  ).toThrow(XdrError);
  expect(() =>
    written((w) => {
      w.uhyper(-1n);
    }),
  ).toThrow(XdrError);
  expect(() =>
    written((w) => {
      w.hyper(2n ** 63n);
    }),
  ).toThrow(XdrError);
  expect(
    written((w) => {
      w.uhyper(2n ** 64n - 1n);
    }),
  ).toBe("ffffffffffffffff");
});

test("strings are counted in bytes and padded with zeros", () => {
  expect(
    written((w) => {
      w.string("é", 2);
    }),
  ).toBe("00000002c3a90000");
  expect(
    written((w) => {
      w.string("abcd", 4);
    }),
  ).toBe("0000000461626364");
  expect(() =>
    written((w) => {
      w.string("éé", 3);
    }),
  ).toThrow(XdrError);
});

test("a string with a NUL is refused: the daemon would read what stands before it", () => {
  expect(() =>
    written((w) => {
      w.string("web\0.evil", 100);
    }),
  ).toThrow(XdrError);
});

test.each(["", "not-a-uuid", "00112233445566778899aabbccddeeff", "00112233-4455-6677-8899-aabbccddeefg"])(
  "%j is refused as a UUID",
  (value) => {
    expect(() =>
      written((w) => {
        w.uuid(value);
      }),
    ).toThrow(XdrError);
  },
);

test("a list that claims more items than its message can hold is refused before it is built", () => {
  const bytes = Buffer.from("00ffffff00000000", "hex");
  expect(() => array(int, 0x00ff_ffff).read(new XdrReader(bytes))).toThrow("too long");
});

test("lists keep the protocol's bound in both directions", () => {
  const codec = array(int, 2);
  expect(() => {
    codec.write(new XdrWriter(), [1, 2, 3]);
  }).toThrow(XdrError);
  const three = Buffer.from("00000003000000010000000200000003", "hex");
  expect(() => codec.read(new XdrReader(three))).toThrow(XdrError);
});

test("the mark of an optional value is 0 or 1", () => {
  expect(() => nullable(int).read(new XdrReader(Buffer.from("0000000200000001", "hex")))).toThrow(XdrError);
});

test("narrow integers keep their range although each takes four bytes", () => {
  expect(() => {
    uchar.write(new XdrWriter(), 256);
  }).toThrow(XdrError);
  expect(() => uchar.read(new XdrReader(Buffer.from("00000100", "hex")))).toThrow(XdrError);
});

test("a fixed array of characters takes four bytes for each", () => {
  const w = new XdrWriter();
  chars(3).write(w, "ab");
  expect(w.bytes().toString("hex")).toBe("000000610000006200000000");
  expect(() => {
    chars(1).write(new XdrWriter(), "ab");
  }).toThrow(XdrError);
});

test("bytes behind the end of a message are noticed", () => {
  const r = new XdrReader(Buffer.alloc(8));
  struct({ only: int }).read(r);
  expect(() => {
    r.requireEnd();
  }).toThrow("4 bytes follow");
});
