import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { TOKEN } from "./crash-service.ts";

const KERNEL_BYTES = 4_096;
const DISK_BYTES = 64 * 1024;

/** Serves kernels on the loopback: any path, each with a content of its own. */
export async function serveImages(): Promise<{ readonly url: string; close(): void }> {
  const server = createServer((request, response) => {
    response.end(kernelContent(request.url ?? ""));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () => {
      server.close();
    },
  };
}

/** Uploads an image, and returns its id. */
export async function uploadImage(
  serviceUrl: string,
  name: string,
  kind: "disk" | "kernel",
  body: Buffer,
): Promise<string> {
  const answer = await fetch(`${serviceUrl}/v1/images/${name}/content?kind=${kind}`, {
    method: "PUT",
    headers: { authorization: `Bearer ${TOKEN}`, "content-type": "application/octet-stream" },
    body: new Uint8Array(body),
  });
  if (!answer.ok) throw new Error(`no image: ${await answer.text()}`);
  return ((await answer.json()) as { readonly id: string }).id;
}

/** A disk from which nothing boots. */
export function diskContent(): Buffer {
  return Buffer.alloc(DISK_BYTES, 1);
}

const LOAD_ADDRESS = 0x10_0000;
const HEADER_OFFSET = 16;
const CODE_OFFSET = 64;
/** Multiboot Specification 0.6.96, section 3.1: the magic, and the flag that says where to load the file. */
const MULTIBOOT_MAGIC = 0x1bad_b002;
const MULTIBOOT_HAS_ADDRESSES = 0x1_0000;

/** The smallest kernel that QEMU boots: it halts at once, so that guests cost no CPU. The text makes it another content. */
export function kernelContent(text: string): Buffer {
  const content = Buffer.alloc(KERNEL_BYTES);
  content.write("\x7fELF", "latin1");
  const end = LOAD_ADDRESS + KERNEL_BYTES;
  const checksum = -(MULTIBOOT_MAGIC + MULTIBOOT_HAS_ADDRESSES) >>> 0;
  const addresses = [LOAD_ADDRESS + HEADER_OFFSET, LOAD_ADDRESS, end, end, LOAD_ADDRESS + CODE_OFFSET];
  for (const [index, word] of [MULTIBOOT_MAGIC, MULTIBOOT_HAS_ADDRESSES, checksum, ...addresses].entries())
    content.writeUInt32LE(word, HEADER_OFFSET + 4 * index);
  // cli; hlt; jmp to the hlt
  content.set([0xfa, 0xf4, 0xeb, 0xfd], CODE_OFFSET);
  content.write(text, 2 * CODE_OFFSET);
  return content;
}
