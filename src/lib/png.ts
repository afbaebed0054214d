import { promisify } from "node:util";
import { crc32, deflate } from "node:zlib";

/** A picture of 8 bits for each of red, green and blue, row by row from the top. */
export interface RgbPicture {
  readonly width: number;
  readonly height: number;
  readonly pixels: Uint8Array;
}

const SIGNATURE = Buffer.from("\x89PNG\r\n\x1a\n", "latin1");
const COLOUR_RGB = 2;
const BYTES_PER_PIXEL = 3;
/** Screens are mostly flat: more effort gains little and takes long. */
const COMPRESSION_LEVEL = 4;

const compress = promisify(deflate) as (data: Uint8Array, options: { level: number }) => Promise<Buffer>;

/** True for what begins as a PNG does. */
export function isPng(bytes: Uint8Array): boolean {
  return SIGNATURE.equals(bytes.subarray(0, SIGNATURE.length));
}

/** Writes a PNG. Throws RangeError for a picture without pixels, or with others than its size says. */
export async function encodePng({ width, height, pixels }: RgbPicture): Promise<Buffer> {
  const stride = width * BYTES_PER_PIXEL;
  if (!isDimension(width) || !isDimension(height) || pixels.length !== stride * height) {
    throw new RangeError(`a picture of ${width} x ${height} does not have ${pixels.length} bytes`);
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, COLOUR_RGB, 0, 0, 0], 8);
  // Each row begins with its filter; 0 is none.
  const rows = Buffer.alloc((stride + 1) * height);
  for (let y = 0; y < height; y++) {
    rows.set(pixels.subarray(y * stride, (y + 1) * stride), y * (stride + 1) + 1);
  }
  const data = await compress(rows, { level: COMPRESSION_LEVEL });
  return Buffer.concat([
    SIGNATURE,
    chunk("IHDR", header),
    chunk("IDAT", data),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}

function isDimension(value: number): boolean {
  return Number.isInteger(value) && value >= 1 && value < 2 ** 31;
}

function chunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
  const frame = Buffer.alloc(body.length + 8);
  frame.writeUInt32BE(data.length, 0);
  body.copy(frame, 4);
  frame.writeUInt32BE(crc32(body), body.length + 4);
  return frame;
}
