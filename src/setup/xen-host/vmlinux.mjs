// Takes the kernel out of its self-unpacking file: unpacking it in an emulated machine costs many seconds.
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { run } from "../run-program.mjs";

/** @type {readonly { magic: string, program: string, args: readonly string[], hasSizeBehind: boolean }[]} */
const COMPRESSIONS = [
  { magic: "1f8b", program: "gzip", args: [], hasSizeBehind: false },
  { magic: "fd377a585a00", program: "xz", args: ["--single-stream"], hasSizeBehind: true },
  { magic: "28b52ffd", program: "zstd", args: ["--quiet"], hasSizeBehind: true },
  { magic: "02214c18", program: "lz4", args: ["--quiet"], hasSizeBehind: true },
];
const ELF = "7f454c46";

/**
 * @param {Buffer} bzImage
 * @returns {Buffer} the compressed kernel inside, found by the fields of the x86 boot protocol 2.08
 *   (Documentation/arch/x86/boot.rst)
 * @throws {Error} when it is no such file
 */
export function payloadOf(bzImage) {
  if (bzImage.length < 0x250 || bzImage.toString("latin1", 0x202, 0x206) !== "HdrS") {
    throw new Error("this is no Linux kernel for x86");
  }
  const setupSectors = bzImage[0x1f1] || 4;
  const start = (setupSectors + 1) * 512 + bzImage.readUInt32LE(0x248);
  return bzImage.subarray(start, start + bzImage.readUInt32LE(0x24c));
}

/**
 * @param {string} bzImagePath
 * @param {string} path where the ELF file goes
 */
export async function extractVmlinux(bzImagePath, path) {
  const payload = payloadOf(readFileSync(bzImagePath));
  const start = payload.toString("hex", 0, 8);
  const compression = COMPRESSIONS.find(({ magic }) => start.startsWith(magic));
  if (compression === undefined) throw new Error(`${bzImagePath} is packed in an unknown way (${start})`);
  const packed = `${path}.packed`;
  // The kernel's makefiles write the unpacked size behind what the programs know as the end.
  writeFileSync(packed, compression.hasSizeBehind ? payload.subarray(0, -4) : payload);
  const unpack = [compression.program, "--decompress", "--stdout", ...compression.args].join(" ");
  await run("sh", ["-c", `exec ${unpack} <"$1" >"$2"`, "sh", packed, path]);
  rmSync(packed);
  if (readFileSync(path).toString("hex", 0, 4) !== ELF) throw new Error(`${bzImagePath} holds no ELF file`);
}
