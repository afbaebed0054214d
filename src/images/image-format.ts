import { type ContentType, detectContent } from "./content-type.ts";
import { parseQcow2Header, QCOW2_HEAD_BYTES, type Qcow2Header, qcow2Truncation } from "./qcow2-header.ts";

/** What an image is for, and how a disk's bytes are laid out. Pure: bytes in, verdict out. */

export const IMAGE_KINDS = ["disk", "kernel", "initrd"] as const;
export type ImageKind = (typeof IMAGE_KINDS)[number];

export const IMAGE_FORMATS = ["raw", "qcow2"] as const;
export type ImageFormat = (typeof IMAGE_FORMATS)[number];

/** How many bytes from the beginning of a file `identifyImage` wants to see; fewer only where the file is shorter. */
export const HEAD_BYTES = QCOW2_HEAD_BYTES;

/** Disks are addressed in sectors. */
const SECTOR_BYTES = 512;

/** What the client says that it sends. */
export interface ImageClaim {
  readonly kind: ImageKind;
  /** null: to be found out. */
  readonly format: ImageFormat | null;
}

/** What the first bytes say. */
export type Identity =
  | { readonly kind: "disk"; readonly format: "raw" }
  | { readonly kind: "disk"; readonly format: "qcow2"; readonly header: Qcow2Header }
  | { readonly kind: "kernel" | "initrd"; readonly format: null };

export type Identified =
  | { readonly ok: true; readonly identity: Identity }
  /** A whole sentence for the client. */
  | { readonly ok: false; readonly reason: string };

/** An image whose content was checked to its end. Sizes in bytes; `virtualSizeBytes` is null for what is no disk. */
export interface CheckedImage {
  readonly format: ImageFormat | null;
  readonly virtualSizeBytes: number | null;
}

/**
 * Compares what a file begins with with what the client says it is.
 * @param maxVirtualSizeBytes the largest disk that a guest may see: a few bytes of qcow2 can claim any size.
 */
export function identifyImage(head: Uint8Array, claim: ImageClaim, maxVirtualSizeBytes: number): Identified {
  if (head.length === 0) return refuse("The image is empty.");
  const content = detectContent(head);
  switch (claim.kind) {
    case "disk":
      return identifyDisk(head, content, claim.format, maxVirtualSizeBytes);
    case "kernel":
      if (content.kind === "kernel") return accept({ kind: "kernel", format: null });
      return refuse(`${mismatch(claim, content)} A kernel is a bzImage, an ELF file or an arm64 Image.`);
    case "initrd":
      if (content.kind === "cpio" || (content.kind === "compressed" && content.initrd)) {
        return accept({ kind: "initrd", format: null });
      }
      return refuse(`${mismatch(claim, content)} An initrd is a cpio archive (newc), compressed or not.`);
  }
}

/** Checks what only the whole file can show. Returns the image's format and virtual size, or what is wrong. */
export function checkWhole(
  identity: Identity,
  sizeBytes: number,
): CheckedImage | { readonly reason: string } {
  if (identity.kind !== "disk") return { format: null, virtualSizeBytes: null };
  if (identity.format === "raw") {
    if (sizeBytes % SECTOR_BYTES === 0) return { format: "raw", virtualSizeBytes: sizeBytes };
    return {
      reason:
        `The raw disk is ${sizeBytes} bytes long, which is no multiple of ${SECTOR_BYTES}: ` +
        "it is cut off, or it is no disk.",
    };
  }
  const truncation = qcow2Truncation(identity.header, sizeBytes);
  if (truncation !== null) return { reason: `The image ${truncation}.` };
  return { format: "qcow2", virtualSizeBytes: identity.header.virtualSizeBytes };
}

function identifyDisk(
  head: Uint8Array,
  content: ContentType,
  format: ImageFormat | null,
  maxVirtualSizeBytes: number,
): Identified {
  const claim: ImageClaim = { kind: "disk", format };
  if (content.kind === "unknown") {
    return format === "qcow2" ? refuse(mismatch(claim, content)) : accept({ kind: "disk", format: "raw" });
  }
  if (content.kind !== "qcow2" || format === "raw") return refuse(mismatch(claim, content));
  const parsed = parseQcow2Header(head);
  if (parsed.kind === "refused") return refuse(`The image ${parsed.reason}.`);
  if (parsed.header.virtualSizeBytes > maxVirtualSizeBytes) {
    return refuse(
      `The image has a virtual size of ${parsed.header.virtualSizeBytes} bytes; ` +
        `at most ${maxVirtualSizeBytes} are allowed.`,
    );
  }
  return accept({ kind: "disk", format: "qcow2", header: parsed.header });
}

function mismatch(claim: ImageClaim, content: ContentType): string {
  const claimed = claim.format === null ? describeKind(claim.kind) : `a ${claim.format} disk`;
  return `The content is not ${claimed}: it seems to be ${describeContent(content)}.${hintFor(claim, content)}`;
}

function describeKind(kind: ImageKind): string {
  switch (kind) {
    case "disk":
      return "a disk";
    case "kernel":
      return "a kernel";
    case "initrd":
      return "an initrd";
  }
}

function describeContent(content: ContentType): string {
  switch (content.kind) {
    case "qcow2":
      return "a qcow2 disk";
    case "cpio":
      return "a cpio archive";
    case "unknown":
      return "raw bytes of no known format";
    case "kernel":
    case "compressed":
    case "foreign":
      return content.name;
  }
}

function hintFor(claim: ImageClaim, content: ContentType): string {
  switch (content.kind) {
    case "qcow2":
      return " Send it with kind=disk and format=qcow2, or leave the format out.";
    case "kernel":
      return " Send it with kind=kernel.";
    case "cpio":
      return " Send it with kind=initrd.";
    case "compressed":
      return claim.kind === "disk" && content.initrd
        ? " Unpack it first, or send it with kind=initrd if it is one."
        : " Unpack it first.";
    case "foreign":
      return ` What to do: ${content.hint}.`;
    case "unknown":
      return "";
  }
}

function accept(identity: Identity): Identified {
  return { ok: true, identity };
}

function refuse(reason: string): Identified {
  return { ok: false, reason };
}
