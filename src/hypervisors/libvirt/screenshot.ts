import { encodePng, isPng } from "../../lib/png.ts";
import { domainScreenshot } from "../../libvirt-rpc/index.ts";
import { type Call, HypervisorError } from "../hypervisor.ts";
import { runningDomain } from "./consoles.ts";
import type { HostContext } from "./host-context.ts";
import { parsePpm } from "./parse-ppm.ts";

/** A screen of 4096 x 4096 pixels, uncompressed. */
const MAX_BYTES = 52_428_800;

/** Takes a picture of a guest's first screen. By its QEMU's age it comes as PPM or as PNG. */
export async function takeScreenshot(host: HostContext, uuid: string, call: Call): Promise<Uint8Array> {
  const { domain } = await runningDomain(host, uuid, call);
  const picture = await host.calls.stream(call, async (connection) => {
    const { signal, timeoutMs } = call;
    const args = { domain, screen: 0, flags: 0 };
    return await bounded(connection.download(domainScreenshot, args, { signal, timeoutMs }));
  });
  return isPng(picture) ? picture : await encodePng(parsePpm(picture));
}

/** Leaving the loop destroys the stream. */
async function bounded(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of stream) {
    bytes += chunk.length;
    if (bytes > MAX_BYTES) {
      throw new HypervisorError("failed", "the guest's screen is larger than a picture may be", {
        retryable: false,
      });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
