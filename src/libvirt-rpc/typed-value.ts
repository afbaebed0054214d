import { type Codec, STRING_MAX } from "./codec.ts";
import { XdrError, type XdrReader, type XdrWriter } from "./xdr.ts";

/**
 * libvirt's virTypedParameter value. The daemon refuses a value whose type is not exactly the one it
 * expects, so the type is always said. Numbers are virTypedParameterType.
 */
export type TypedValue =
  | { readonly type: "int"; readonly value: number }
  | { readonly type: "uint"; readonly value: number }
  | { readonly type: "llong"; readonly value: bigint }
  | { readonly type: "ullong"; readonly value: bigint }
  | { readonly type: "double"; readonly value: number }
  | { readonly type: "boolean"; readonly value: boolean }
  | { readonly type: "string"; readonly value: string };

function write(w: XdrWriter, value: TypedValue): void {
  switch (value.type) {
    case "int":
      w.int(1);
      w.int(value.value);
      return;
    case "uint":
      w.int(2);
      w.uint(value.value);
      return;
    case "llong":
      w.int(3);
      w.hyper(value.value);
      return;
    case "ullong":
      w.int(4);
      w.uhyper(value.value);
      return;
    case "double":
      w.int(5);
      w.double(value.value);
      return;
    case "boolean":
      w.int(6);
      w.int(value.value ? 1 : 0);
      return;
    case "string":
      w.int(7);
      w.string(value.value, STRING_MAX);
  }
}

function read(r: XdrReader): TypedValue {
  const type = r.int();
  switch (type) {
    case 1:
      return { type: "int", value: r.int() };
    case 2:
      return { type: "uint", value: r.uint() };
    case 3:
      return { type: "llong", value: r.hyper() };
    case 4:
      return { type: "ullong", value: r.uhyper() };
    case 5:
      return { type: "double", value: r.double() };
    case 6:
      return { type: "boolean", value: r.int() !== 0 };
    case 7:
      return { type: "string", value: r.string(STRING_MAX) };
    default:
      throw new XdrError(`${type} is no type of a typed parameter`);
  }
}

export const typedValue: Codec<TypedValue> = { shape: { kind: "typedValue" }, write, read };
