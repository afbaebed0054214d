import { type Codec, nothing } from "./codec.ts";
import type { XdrReader, XdrWriter } from "./xdr.ts";

/** Program numbers, from libvirt's protocol description. All are spoken in version 1. */
export const REMOTE_PROGRAM = 0x2000_8086;
const QEMU_PROGRAM = 0x2000_8087;
export const KEEPALIVE_PROGRAM = 0x6b65_6570;

/** A remote call: its number, how its arguments are written and how its result is read. */
export interface Procedure<Args, Result> {
  readonly name: string;
  readonly program: number;
  readonly number: number;
  encode(w: XdrWriter, args: Args): void;
  decode(r: XdrReader): Result;
}

/** A procedure as we declare them, from two codecs. */
export interface DeclaredProcedure<Args, Result> extends Procedure<Args, Result> {
  readonly args: Codec<Args>;
  readonly result: Codec<Result>;
}

function declare<Args, Result>(
  program: number,
  name: string,
  number: number,
  args: Codec<Args>,
  result: Codec<Result>,
): DeclaredProcedure<Args, Result> {
  return {
    name,
    program,
    number,
    args,
    result,
    encode: (w, value) => {
      args.write(w, value);
    },
    decode: (r) => result.read(r),
  };
}

/** Declares a procedure of libvirt's main program that answers with something. */
export function remote<Args, Result>(
  name: string,
  number: number,
  args: Codec<Args>,
  result: Codec<Result>,
): DeclaredProcedure<Args, Result> {
  return declare(REMOTE_PROGRAM, name, number, args, result);
}

/** Declares a procedure of libvirt's main program whose answer is empty. */
export function remoteVoid<Args>(
  name: string,
  number: number,
  args: Codec<Args>,
): DeclaredProcedure<Args, undefined> {
  return declare(REMOTE_PROGRAM, name, number, args, nothing);
}

/** Declares a procedure of the program that only QEMU's driver has. */
export function qemu<Args, Result>(
  name: string,
  number: number,
  args: Codec<Args>,
  result: Codec<Result>,
): DeclaredProcedure<Args, Result> {
  return declare(QEMU_PROGRAM, name, number, args, result);
}
