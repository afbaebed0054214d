/**
 * Small combinators from which the protocol's structures are put together. Every codec carries its
 * shape, so that tests can generate values for a procedure nobody wrote a generator for.
 */
import { XdrError, type XdrReader, type XdrWriter } from "./xdr.ts";

/** What a codec takes, as data. */
export type Shape =
  | { readonly kind: "nothing" | "int" | "uint" | "hyper" | "uhyper" | "boolean" | "uuid" }
  | { readonly kind: "string"; readonly maxBytes: number }
  | { readonly kind: "chars"; readonly length: number }
  | { readonly kind: "integer"; readonly min: number; readonly max: number }
  | { readonly kind: "nullable"; readonly of: Shape }
  | { readonly kind: "array"; readonly of: Shape; readonly maxItems: number }
  | { readonly kind: "struct"; readonly fields: Readonly<Record<string, Shape>> }
  | { readonly kind: "typedValue" };

/** Writes and reads one type. `read(write(x))` is x. */
export interface Codec<T> {
  readonly shape: Shape;
  write(w: XdrWriter, value: T): void;
  read(r: XdrReader): T;
}

/** A field that always has the same value, and is therefore no field of the object. */
export interface Constant {
  readonly constant: true;
  write(w: XdrWriter): void;
  read(r: XdrReader): void;
}

/** REMOTE_STRING_MAX: the bound of every string in the protocol, in bytes. */
export const STRING_MAX = 4_194_304;

export const nothing: Codec<undefined> = {
  shape: { kind: "nothing" },
  write: () => undefined,
  read: () => undefined,
};

export const int: Codec<number> = {
  shape: { kind: "int" },
  write: (w, value) => {
    w.int(value);
  },
  read: (r) => r.int(),
};

export const uint: Codec<number> = {
  shape: { kind: "uint" },
  write: (w, value) => {
    w.uint(value);
  },
  read: (r) => r.uint(),
};

export const hyper: Codec<bigint> = {
  shape: { kind: "hyper" },
  write: (w, value) => {
    w.hyper(value);
  },
  read: (r) => r.hyper(),
};

export const uhyper: Codec<bigint> = {
  shape: { kind: "uhyper" },
  write: (w, value) => {
    w.uhyper(value);
  },
  read: (r) => r.uhyper(),
};

export const boolean: Codec<boolean> = {
  shape: { kind: "boolean" },
  write: (w, value) => {
    w.int(value ? 1 : 0);
  },
  read: (r) => r.int() !== 0,
};

export const string: Codec<string> = {
  shape: { kind: "string", maxBytes: STRING_MAX },
  write: (w, value) => {
    w.string(value, STRING_MAX);
  },
  read: (r) => r.string(STRING_MAX),
};

export const uuid: Codec<string> = {
  shape: { kind: "uuid" },
  write: (w, value) => {
    w.uuid(value);
  },
  read: (r) => r.uuid(),
};

/** The protocol's `char`, `unsigned char` and `unsigned short`, each of which takes four bytes. */
function narrow(min: number, max: number): Codec<number> {
  const check = (value: number): number => {
    if (value < min || value > max) throw new XdrError(`${value} is not within ${min} and ${max}`);
    return value;
  };
  return {
    shape: { kind: "integer", min, max },
    write: (w, value) => {
      w.int(check(value));
    },
    read: (r) => check(r.int()),
  };
}

export const char = narrow(-128, 127);
export const uchar = narrow(0, 255);
export const ushort = narrow(0, 65_535);

/** `char x[length]`: a C string in a fixed array, where each character takes four bytes. */
export function chars(length: number): Codec<string> {
  return {
    shape: { kind: "chars", length },
    write: (w, value) => {
      const bytes = Buffer.from(value, "latin1");
      if (bytes.length > length) throw new XdrError(`a string of ${bytes.length} bytes exceeds ${length}`);
      for (let i = 0; i < length; i++) w.int(bytes[i] ?? 0);
    },
    read: (r) => {
      const bytes = Buffer.alloc(length);
      for (let i = 0; i < length; i++) bytes[i] = r.int() & 0xff;
      const end = bytes.indexOf(0);
      return bytes.toString("latin1", 0, end < 0 ? length : end);
    },
  };
}

/** A pointer that may be NULL. */
export function nullable<T>(of: Codec<T>): Codec<T | null> {
  return {
    shape: { kind: "nullable", of: of.shape },
    write: (w, value) => {
      w.int(value === null ? 0 : 1);
      if (value !== null) of.write(w, value);
    },
    read: (r) => {
      const present = r.int();
      if (present !== 0 && present !== 1) throw new XdrError(`${present} is no mark of an optional value`);
      return present === 1 ? of.read(r) : null;
    },
  };
}

/** A list of at most `maxItems`. */
export function array<T>(of: Codec<T>, maxItems: number): Codec<readonly T[]> {
  return {
    shape: { kind: "array", of: of.shape, maxItems },
    write: (w, items) => {
      if (items.length > maxItems) throw new XdrError(`${items.length} items exceed ${maxItems}`);
      w.uint(items.length);
      for (const item of items) of.write(w, item);
    },
    read: (r) => {
      const count = r.uint();
      // No item is smaller than four bytes, so a count beyond that is a lie not worth looping for.
      if (count > maxItems || count * 4 > r.remaining)
        throw new XdrError(`a list of ${count} items is too long`);
      return Array.from({ length: count }, () => of.read(r));
    },
  };
}

/** An int that is written as `value` and not looked at when read (`need_results`, a repeated count). */
export function constant(value: number): Constant {
  return {
    constant: true,
    write: (w) => {
      w.int(value);
    },
    read: (r) => {
      r.int();
    },
  };
}

type Field = Codec<unknown> | Constant;

type FieldNames<F> = { [K in keyof F]: F[K] extends Constant ? never : K }[keyof F];

/** The object a structure with these fields stands for. */
export type StructOf<F> = { readonly [K in FieldNames<F>]: F[K] extends Codec<infer T> ? T : never };

function isConstant(field: Field): field is Constant {
  return "constant" in field;
}

/** Fields one after another, in the order they are written down. */
export function struct<F extends Readonly<Record<string, Field>>>(fields: F): Codec<StructOf<F>> {
  const entries = Object.entries(fields);
  const shapes: Record<string, Shape> = {};
  for (const [name, field] of entries) if (!isConstant(field)) shapes[name] = field.shape;
  return {
    shape: { kind: "struct", fields: shapes },
    write: (w, value) => {
      const values: Readonly<Record<string, unknown>> = value;
      for (const [name, field] of entries) {
        if (isConstant(field)) field.write(w);
        else field.write(w, values[name]);
      }
    },
    read: (r) => {
      const values: Record<string, unknown> = {};
      for (const [name, field] of entries) {
        if (isConstant(field)) field.read(r);
        else values[name] = field.read(r);
      }
      // The type follows from `fields`, which the compiler cannot see through the loop.
      return values as StructOf<F>;
    },
  };
}
