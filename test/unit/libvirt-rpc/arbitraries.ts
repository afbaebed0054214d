import fc from "fast-check";
import type { Shape } from "../../../src/libvirt-rpc/codec.ts";

const text = (maxLength: number): fc.Arbitrary<string> =>
  fc.string({ unit: "grapheme", maxLength }).filter((value) => !value.includes("\0"));

const integer = (min: number, max: number): fc.Arbitrary<number> =>
  fc.oneof(fc.integer({ min, max }), fc.constantFrom(min, max));

const typedValue = fc.oneof(
  fc.record({ type: fc.constant("int"), value: integer(-0x8000_0000, 0x7fff_ffff) }),
  fc.record({ type: fc.constant("uint"), value: integer(0, 0xffff_ffff) }),
  fc.record({ type: fc.constant("llong"), value: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }) }),
  fc.record({ type: fc.constant("ullong"), value: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }) }),
  fc.record({ type: fc.constant("double"), value: fc.double() }),
  fc.record({ type: fc.constant("boolean"), value: fc.boolean() }),
  fc.record({ type: fc.constant("string"), value: text(40) }),
);

/** Values of a codec's shape. Lists and texts are kept short; their bounds have tests of their own. */
export function valuesOf(shape: Shape): fc.Arbitrary<unknown> {
  switch (shape.kind) {
    case "nothing":
      return fc.constant(undefined);
    case "int":
      return integer(-0x8000_0000, 0x7fff_ffff);
    case "uint":
      return integer(0, 0xffff_ffff);
    case "integer":
      return integer(shape.min, shape.max);
    case "hyper":
      return fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
    case "uhyper":
      return fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
    case "boolean":
      return fc.boolean();
    case "uuid":
      return fc.uuid();
    case "string":
      return text(40);
    case "chars":
      return fc.string({ unit: "grapheme-ascii", maxLength: shape.length });
    case "nullable":
      return fc.option(valuesOf(shape.of), { nil: null });
    case "array":
      return fc.array(valuesOf(shape.of), { maxLength: Math.min(shape.maxItems, 5) });
    case "struct":
      return fc.record(
        Object.fromEntries(Object.entries(shape.fields).map(([name, field]) => [name, valuesOf(field)])),
        { noNullPrototype: true },
      );
    case "typedValue":
      return typedValue;
  }
}
