import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Codec } from "../../../src/libvirt-rpc/codec.ts";
import { eventBodies } from "../../../src/libvirt-rpc/procedures/events.ts";
import * as procedures from "../../../src/libvirt-rpc/procedures/index.ts";
import { remoteError } from "../../../src/libvirt-rpc/structures.ts";
import { XdrError, XdrReader, XdrWriter } from "../../../src/libvirt-rpc/xdr.ts";
import { valuesOf } from "./arbitraries.ts";

const declared = Object.entries(procedures);

/** Every codec that writes something, by a name for the report. */
const codecs = [
  ...declared.flatMap(([name, { args, result }]): [string, Codec<unknown>][] => [
    [`${name} arguments`, args],
    [`${name} result`, result],
  ]),
  ...[...eventBodies].map(([number, body]): [string, Codec<unknown>] => [`event ${number}`, body]),
  ["error", remoteError] as [string, Codec<unknown>],
].filter(([, codec]) => codec.shape.kind !== "nothing");

function write(codec: Codec<unknown>, value: unknown): Buffer {
  const w = new XdrWriter();
  codec.write(w, value);
  return w.bytes();
}

function readAll(codec: Codec<unknown>, bytes: Buffer): unknown {
  const r = new XdrReader(bytes);
  const value = codec.read(r);
  r.requireEnd();
  return value;
}

describe.each(codecs)("%s", (_name, codec) => {
  test("reads back what was written, in multiples of four bytes", () => {
    fc.assert(
      fc.property(valuesOf(codec.shape), (value) => {
        const bytes = write(codec, value);
        expect(bytes.length % 4).toBe(0);
        expect(readAll(codec, bytes)).toEqual(value);
      }),
      { numRuns: 50 },
    );
  });

  test("refuses a message that was cut anywhere", () => {
    fc.assert(
      fc.property(valuesOf(codec.shape), fc.nat(), (value, cut) => {
        const bytes = write(codec, value);
        expect(() => readAll(codec, bytes.subarray(0, cut % bytes.length))).toThrow(XdrError);
      }),
      { numRuns: 50 },
    );
  });

  test("reads or refuses any bytes, and nothing worse", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
        try {
          readAll(codec, Buffer.from(bytes));
        } catch (error) {
          expect(error).toBeInstanceOf(XdrError);
        }
      }),
      { numRuns: 100 },
    );
  });
});

test("every procedure bears the name it is exported by, and a number of its own", () => {
  expect(declared.map(([, procedure]) => procedure.name)).toEqual(declared.map(([name]) => name));
  const numbers = declared.map(([, { program, number }]) => `${program}/${number}`);
  expect(new Set(numbers).size).toBe(numbers.length);
});

test("a call is laid out as libvirt's own client does it", () => {
  const bytes = write(procedures.connectListAllDomains.args, { flags: 3 });
  expect(bytes.toString("hex")).toBe("0000000100000003");
  const domain = { name: "web", uuid: "00112233-4455-6677-8899-aabbccddeeff", id: -1 };
  expect(write(procedures.domainGetState.args, { domain, flags: 0 }).toString("hex")).toBe(
    "0000000377656200" + "00112233445566778899aabbccddeeff" + "ffffffff" + "00000000",
  );
});
