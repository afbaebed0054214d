import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, it, onTestFinished } from "vitest";
import { parseImportAllowList } from "../../../src/images/address-guard.ts";
import { type DownloadOptions, openDownload } from "../../../src/images/image-download.ts";

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** A server on this machine; returns its port and the paths that were asked for. */
async function serve(handler: Handler): Promise<{ readonly port: number; readonly asked: string[] }> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url ?? "");
    handler(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, asked };
}

const loopback = parseImportAllowList(["127.0.0.1"]);

function options(change: Partial<DownloadOptions> = {}): DownloadOptions {
  return { allow: loopback, signal: new AbortController().signal, digestKnown: false, ...change };
}

async function fetchText(url: string, change: Partial<DownloadOptions> = {}): Promise<string> {
  const download = await openDownload(url, options(change));
  try {
    const chunks: Uint8Array[] = [];
    for await (const chunk of download.content) chunks.push(chunk);
    return Buffer.concat(chunks).toString();
  } finally {
    download.close();
  }
}

describe("openDownload", () => {
  it("fetches from an allowed address, unpacked and with what the server announces", async () => {
    const { port } = await serve((request, response) => {
      expect(request.headers["accept-encoding"]).toBe("identity");
      expect(request.headers.authorization).toBeUndefined();
      response.setHeader("content-length", "7").end("content");
    });
    const download = await openDownload(`http://127.0.0.1:${port}/x`, options());
    expect(download.sizeBytes).toBe(7);
    download.close();
    expect(await fetchText(`http://127.0.0.1:${port}/x`)).toBe("content");
  });

  it("refuses an address that is not allowed, without a connection", async () => {
    const { port, asked } = await serve((_request, response) => response.end("secret"));
    const nothing = parseImportAllowList([]);
    for (const host of ["127.0.0.1", "[::ffff:127.0.0.1]", "2130706433", "localhost"]) {
      await expect(fetchText(`http://${host}:${port}/`, { allow: nothing })).rejects.toMatchObject({
        code: "address_forbidden",
      });
    }
    expect(asked).toEqual([]);
  });

  it("refuses a name of which one address is not allowed", async () => {
    const resolve = () =>
      Promise.resolve([
        { address: "127.0.0.1", family: 4 as const },
        { address: "10.0.0.1", family: 4 as const },
      ]);
    const refused = fetchText("http://two-faced.example/", { resolve });
    await expect(refused).rejects.toThrow(/resolves to 10\.0\.0\.1, which is a private address/);
  });

  it("connects to the address that it checked, whatever the name resolves to afterwards", async () => {
    const { port, asked } = await serve((_request, response) => response.end("checked"));
    let times = 0;
    const rebinding = () => {
      times++;
      return Promise.resolve([
        { address: times === 1 ? "127.0.0.1" : "169.254.169.254", family: 4 as const },
      ]);
    };
    // The name does not exist: only the pinned address can have led there.
    expect(await fetchText(`http://rebinding.invalid:${port}/a`, { resolve: rebinding })).toBe("checked");
    await expect(
      fetchText(`http://rebinding.invalid:${port}/b`, { resolve: rebinding }),
    ).rejects.toMatchObject({
      code: "address_forbidden",
    });
    expect(asked).toEqual(["/a"]);
    expect(times).toBe(2);
  });

  it("resolves anew for a redirect to the same name, and checks again", async () => {
    const { port, asked } = await serve((_request, response) =>
      response.writeHead(302, { location: "/again" }).end(),
    );
    let times = 0;
    const rebinding = () => {
      times++;
      return Promise.resolve([{ address: times === 1 ? "127.0.0.1" : "127.0.0.2", family: 4 as const }]);
    };
    await expect(
      fetchText(`http://rebinding.invalid:${port}/a`, { resolve: rebinding }),
    ).rejects.toMatchObject({
      code: "address_forbidden",
    });
    expect(asked).toEqual(["/a"]);
  });

  it("takes all addresses of a host that is allowed by name", async () => {
    const { port } = await serve((_request, response) => response.end("named"));
    const allow = parseImportAllowList(["mirror.internal"]);
    const resolve = () => Promise.resolve([{ address: "127.0.0.1", family: 4 as const }]);
    expect(await fetchText(`http://Mirror.internal:${port}/`, { allow, resolve })).toBe("named");
  });

  it.each([
    "http://169.254.169.254/latest/meta-data",
    "http://10.0.0.1/x",
    "http://[::1]/x",
    "http://127.0.0.2/x",
  ])("follows no redirect to %s", async (location) => {
    const { port } = await serve((_request, response) => response.writeHead(301, { location }).end());
    await expect(fetchText(`http://127.0.0.1:${port}/`)).rejects.toMatchObject({ code: "address_forbidden" });
  });

  it.each(["file:///etc/passwd", "ftp://127.0.0.1/x", "http://user:password@127.0.0.1/x"])(
    "follows no redirect to %s",
    async (location) => {
      const { port } = await serve((_request, response) => response.writeHead(302, { location }).end());
      await expect(fetchText(`http://127.0.0.1:${port}/`)).rejects.toMatchObject({
        code: "download_failed",
        retry: "never",
      });
    },
  );

  it("follows five redirects and no more", async () => {
    const { port } = await serve((request, response) => {
      const hop = Number(request.url?.slice(1));
      if (hop === 0) response.end("arrived");
      else response.writeHead(302, { location: `/${hop - 1}` }).end();
    });
    expect(await fetchText(`http://127.0.0.1:${port}/5`)).toBe("arrived");
    await expect(fetchText(`http://127.0.0.1:${port}/6`)).rejects.toThrow(/more than 5 times/);
  });

  it.each([
    [404, "never"],
    [403, "never"],
    [429, "temporary"],
    [503, "temporary"],
    [206, "never"],
  ])("takes no content with status %i, retry %s", async (status, retry) => {
    const { port } = await serve((_request, response) => response.writeHead(status).end("error page"));
    const failed = fetchText(`http://127.0.0.1:${port}/x?signature=secret`);
    await expect(failed).rejects.toMatchObject({ code: "download_failed", retry });
    await expect(failed).rejects.toThrow(
      `http://127.0.0.1:${port}/x could not be fetched: the server answered ${status}.`,
    );
  });

  it("takes no content that was packed on the way", async () => {
    const { port } = await serve((_request, response) =>
      response.setHeader("content-encoding", "gzip").end("x"),
    );
    await expect(fetchText(`http://127.0.0.1:${port}/`)).rejects.toThrow(/packed with gzip/);
  });

  it("tells an answer that stops short of its length", async () => {
    const { port } = await serve((_request, response) => {
      response.setHeader("content-length", "100");
      response.write("half", () => response.destroy());
    });
    await expect(fetchText(`http://127.0.0.1:${port}/`)).rejects.toMatchObject({
      code: "download_failed",
      retry: "temporary",
    });
  });

  it("gives up on a server that does not answer, and on one that stops sending", async () => {
    const mute = await serve(() => undefined);
    await expect(fetchText(`http://127.0.0.1:${mute.port}/`, { answerTimeoutSeconds: 0.05 })).rejects.toThrow(
      /did not answer within/,
    );
    const stalled = await serve((_request, response) => {
      response.write("beginning");
    });
    await expect(
      fetchText(`http://127.0.0.1:${stalled.port}/`, { idleTimeoutSeconds: 0.05 }),
    ).rejects.toThrow(/sent nothing for/);
  });

  it("ends with the signal's reason, before and during the transfer", async () => {
    const { port } = await serve((_request, response) => {
      response.write("beginning");
    });
    const reason = new Error("cancelled by somebody");
    await expect(fetchText(`http://127.0.0.1:${port}/`, { signal: AbortSignal.abort(reason) })).rejects.toBe(
      reason,
    );
    const controller = new AbortController();
    const download = await openDownload(`http://127.0.0.1:${port}/`, options({ signal: controller.signal }));
    const reading = (async () => {
      for await (const chunk of download.content) {
        expect(chunk.length).toBeGreaterThan(0);
        controller.abort(reason);
      }
    })();
    await expect(reading).rejects.toBe(reason);
  });

  it("names a host that does not resolve", async () => {
    const resolve = () => Promise.reject(new Error("ENOTFOUND"));
    await expect(fetchText("http://nowhere.invalid/", { resolve })).rejects.toThrow(
      /the name nowhere\.invalid does not resolve/,
    );
  });

  it("tells a refused connection", async () => {
    const { port } = await serve(() => undefined);
    const closed = port === 1 ? 2 : 1;
    await expect(fetchText(`http://127.0.0.1:${closed}/`)).rejects.toMatchObject({
      code: "download_failed",
      retry: "temporary",
    });
  });
});
