import { execa } from "execa";
import { z } from "zod";

/**
 * A second opinion on qcow2 files by QEMU itself, where it is installed. The header parser suffices without it: this
 * catches where the two read the same bytes differently, which is what an attacker looks for.
 */

const Info = z.object({
  format: z.string(),
  "virtual-size": z.number(),
  "backing-filename": z.string().optional(),
  encrypted: z.boolean().optional(),
  "format-specific": z
    .object({ data: z.object({ "data-file": z.string().optional() }).optional() })
    .optional(),
});

/** `info` takes milliseconds; whatever keeps it longer is an attack on it. */
const TIMEOUT_MS = 20_000;
const MAX_OUTPUT_BYTES = 256 * 1024;

export type SecondOpinion =
  | { readonly kind: "agrees" }
  /** A sentence for the client. */
  | { readonly kind: "objects"; readonly reason: string }
  /** Not installed, or it could not be run. */
  | { readonly kind: "absent" };

/**
 * Asks `qemu-img info` about a file that the header parser took for a whole qcow2 disk of this size.
 * @param program `qemu-img`, or the path of one.
 * @param file absolute path; handed over so that no part of it is read as a protocol or an option.
 */
export async function askQemuImg(
  program: string,
  file: string,
  virtualSizeBytes: number,
): Promise<SecondOpinion> {
  const args = ["info", "--output=json", "--force-share", "-f", "qcow2", `file:${file}`];
  const result = await execa(program, args, {
    reject: false,
    stdin: "ignore",
    timeout: TIMEOUT_MS,
    maxBuffer: MAX_OUTPUT_BYTES,
    // Nothing of our environment is its business, credentials least of all.
    extendEnv: false,
    env: { PATH: "/usr/bin:/bin:/usr/sbin:/sbin", LC_ALL: "C" },
    cwd: "/",
  });
  if (result.code === "ENOENT" || result.code === "EACCES") return { kind: "absent" };
  if (result.timedOut)
    return { kind: "objects", reason: "QEMU's own check of the image did not come to an end." };
  if (result.failed) {
    const [line = ""] = result.stderr.split("\n");
    return { kind: "objects", reason: `QEMU cannot open the image: ${withoutPath(line, file)}` };
  }
  return judgeInfo(result.stdout, virtualSizeBytes);
}

/** Compares what `qemu-img info --output=json` printed with what the header said. Pure. */
export function judgeInfo(output: string, virtualSizeBytes: number): SecondOpinion {
  const parsed = Info.safeParse(parseJson(output));
  if (!parsed.success)
    return { kind: "objects", reason: "QEMU's own check of the image gave no readable answer." };
  const info = parsed.data;
  const wrong =
    (info.format === "qcow2" ? null : `a format of ${info.format}`) ??
    (info["virtual-size"] === virtualSizeBytes ? null : `a virtual size of ${info["virtual-size"]} bytes`) ??
    (info["backing-filename"] === undefined ? null : "a backing file") ??
    (info["format-specific"]?.data?.["data-file"] === undefined ? null : "an external data file") ??
    (info.encrypted === true ? "an encryption" : null);
  if (wrong === null) return { kind: "agrees" };
  return {
    kind: "objects",
    reason: `QEMU finds ${wrong} in the image, which its header does not show plainly.`,
  };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function withoutPath(line: string, file: string): string {
  return line
    .replace(/^qemu-img: /, "")
    .replaceAll(`file:${file}`, "the image")
    .replaceAll(file, "the image");
}
