import type { RgbPicture } from "../../lib/png.ts";
import { HypervisorError } from "../hypervisor.ts";

const FULL = 255;
/** `P6`, width, height and the value of full brightness, apart by white space and comments; then one white space. */
const HEADER = /^P6(?:\s|#[^\n]*\n)+(\d{1,5})(?:\s|#[^\n]*\n)+(\d{1,5})(?:\s|#[^\n]*\n)+(\d{1,5})\s/;
const HEADER_MAX_BYTES = 256;

/** Reads a binary PPM as QEMU writes it, eight bits a colour. Throws HypervisorError (`failed`) for anything else. */
export function parsePpm(bytes: Uint8Array): RgbPicture {
  const head = Buffer.from(bytes.subarray(0, HEADER_MAX_BYTES)).toString("latin1");
  const [header, width, height, full] = HEADER.exec(head) ?? [];
  if (header === undefined || Number(full) !== FULL) throw unreadable("its header is none of a PPM");
  const picture = { width: Number(width), height: Number(height), pixels: bytes.subarray(header.length) };
  const wanted = picture.width * picture.height * 3;
  if (wanted === 0 || picture.pixels.length < wanted) throw unreadable("it is shorter than its size says");
  return { ...picture, pixels: picture.pixels.subarray(0, wanted) };
}

function unreadable(why: string): HypervisorError {
  return new HypervisorError("failed", `the host's picture of the screen cannot be read: ${why}`, {
    retryable: false,
  });
}
