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

/** Uploads an image for each name. Nothing boots from them. */
export async function uploadImages(
  serviceUrl: string,
  kinds: Readonly<Record<string, "disk" | "kernel">>,
): Promise<void> {
  for (const [name, kind] of Object.entries(kinds)) {
    const answer = await fetch(`${serviceUrl}/v1/images/${name}/content?kind=${kind}`, {
      method: "PUT",
      headers: { authorization: `Bearer ${TOKEN}`, "content-type": "application/octet-stream" },
      body: kind === "kernel" ? kernelContent(name) : Buffer.alloc(DISK_BYTES, 1),
    });
    if (!answer.ok) throw new Error(`no image: ${await answer.text()}`);
  }
}

/** Begins as a kernel does; no more is asked of it. */
function kernelContent(text: string): Buffer {
  return Buffer.concat([Buffer.from([0x7f, 0x45, 0x4c, 0x46]), Buffer.from(text.padEnd(KERNEL_BYTES))]);
}
