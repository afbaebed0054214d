import type { Duplex } from "node:stream";
import { inflateSync } from "node:zlib";
import { expect } from "vitest";
import type { DomainSpec, HostConnection } from "../../../src/hypervisors/hypervisor.ts";
import { newId, type VmId } from "../../../src/lib/ids.ts";
import type { Behaviour } from "./record.ts";
import { expectRefusal, present, type Scene } from "./scene.ts";

/** An open console whose output is kept as it comes. */
class Terminal {
  readonly stream: Duplex;
  readonly ended: Promise<void>;
  text = "";

  constructor(stream: Duplex) {
    this.stream = stream;
    stream.on("data", (chunk: Buffer) => (this.text += chunk.toString("latin1")));
    stream.on("error", () => undefined);
    this.ended = new Promise((resolve) => {
      stream.once("close", () => {
        resolve();
      });
    });
  }
}

async function openSerial(
  scene: Scene,
  spec: DomainSpec,
  force = false,
  over: HostConnection = scene.connection,
): Promise<Terminal> {
  const open = present(over.openSerialConsole);
  const terminal = new Terminal(await open(spec.uuid, { force }, scene.call()));
  scene.afterwards(async () => {
    terminal.stream.destroy();
    await terminal.ended;
  });
  return terminal;
}

let words = 0;

/** Types a command into the guest's shell until its answer comes: the shell may still be starting. */
async function answers(scene: Scene, terminal: Terminal): Promise<void> {
  const word = `word${(words += 1)}`;
  let asked = 0;
  await scene.eventually("the shell's answer", () => {
    // What is typed is echoed with its quotes; the answer has none.
    if (terminal.text.includes(`DROVER-ECHO ${word}`)) return true;
    if (asked++ % 100 === 0) terminal.stream.write(`\recho DROVER-"ECHO" ${word}\r`);
    return false;
  });
}

/** The serial console: a guest with a shell on it. */
export function serialConsoleBehaviours(scene: Scene, behaviour: Behaviour): void {
  behaviour("serialConsole", "what is typed reaches the guest, and its answer comes back", async () => {
    const spec = await scene.start();
    await scene.guestUp(spec);
    await answers(scene, await openSerial(scene, spec));
  });

  behaviour("serialConsole", "one at a time has it: a second one is refused, or takes it over", async () => {
    const spec = await scene.start();
    await scene.guestUp(spec);
    const first = await openSerial(scene, spec);
    const other = await scene.connect();
    await expectRefusal(present(other.openSerialConsole)(spec.uuid, { force: false }, scene.call()), "busy");
    await answers(scene, first);
    const second = await openSerial(scene, spec, true, other);
    await first.ended;
    await answers(scene, second);
  });

  behaviour("serialConsole", "one that was left is free again", async () => {
    const spec = await scene.start();
    await scene.guestUp(spec);
    const first = await openSerial(scene, spec);
    first.stream.destroy();
    await first.ended;
    const opened: Terminal[] = [];
    await scene.eventually("the console is free", async () => {
      // The host may take a moment to hear of it.
      opened.push(
        ...(await openSerial(scene, spec).then(
          (one) => [one],
          () => [],
        )),
      );
      return opened.length > 0;
    });
    for (const second of opened) await answers(scene, second);
  });

  behaviour("serialConsole", "it ends when the guest goes off", async () => {
    const spec = await scene.start();
    const terminal = await openSerial(scene, spec);
    await scene.connection.forceOffDomain(spec.uuid, scene.call());
    await terminal.ended;
  });

  behaviour("serialConsole", "it ends with its connection", async () => {
    const spec = await scene.start();
    const other = await scene.connect();
    const terminal = await openSerial(scene, spec, false, other);
    await other.close();
    await terminal.ended;
  });

  behaviour("serialConsole", "of a domain that is off, foreign or not there: refused", async () => {
    const spec = await scene.define();
    const open = present(scene.connection.openSerialConsole);
    await expectRefusal(open(spec.uuid, { force: false }, scene.call()), "invalid-state");
    await expectRefusal(open(newId<VmId>(), { force: false }, scene.call()), "not-found");
  });
}

/** Reads until there are this many bytes. */
async function take(stream: Duplex, count: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream.iterator({ destroyOnReturn: false })) {
    chunks.push(chunk as Buffer);
    if (Buffer.concat(chunks).length >= count) break;
  }
  return Buffer.concat(chunks);
}

/** The screen over RFB. */
export function vncBehaviours(scene: Scene, behaviour: Behaviour): void {
  const connect = async (): Promise<HostConnection> => {
    const target = scene.world.screenTarget;
    if (target === undefined) return scene.connection;
    const connection = await scene.world.driver.connect(target, {
      signal: AbortSignal.timeout(scene.world.patienceMs),
    });
    scene.afterwards(() => connection.close());
    return connection;
  };

  behaviour("vnc", "the server greets, and answers the client's greeting", async () => {
    const spec = await scene.start();
    const stream = await present((await connect()).openVnc)(spec.uuid, scene.call());
    scene.afterwards(async () => {
      stream.destroy();
    });
    expect((await take(stream, 12)).toString("latin1")).toBe("RFB 003.008\n");
    stream.write("RFB 003.008\n");
    expect([...(await take(stream, 2))]).toEqual([1, 1]);
  });

  behaviour("vnc", "several may look at once, and all end when the guest goes off", async () => {
    const spec = await scene.start();
    const host = await connect();
    const viewers = [1, 2].map(
      async () => new Terminal(await present(host.openVnc)(spec.uuid, scene.call())),
    );
    const open = await Promise.all(viewers);
    await scene.connection.forceOffDomain(spec.uuid, scene.call());
    await Promise.all(open.map(({ ended }) => ended));
  });

  behaviour("vnc", "of a domain that is off or not there: refused", async () => {
    const spec = await scene.define();
    const open = present((await connect()).openVnc);
    await expectRefusal(open(spec.uuid, scene.call()), "invalid-state");
    await expectRefusal(open(newId<VmId>(), scene.call()), "not-found");
  });
}

/** What the IDAT chunks of a PNG hold together. */
function imageData(png: Buffer): Buffer {
  const parts: Buffer[] = [];
  for (let at = 8; at < png.length; at += 12 + png.readUInt32BE(at)) {
    const type = png.toString("latin1", at + 4, at + 8);
    if (type === "IDAT") parts.push(png.subarray(at + 8, at + 8 + png.readUInt32BE(at)));
  }
  return Buffer.concat(parts);
}

/** Pictures of the screen. */
export function screenshotBehaviours(scene: Scene, behaviour: Behaviour): void {
  const shoot = (spec: { readonly uuid: string }) =>
    present(scene.connection.takeScreenshot)(spec.uuid, scene.call());

  behaviour("screenshot", "a running guest's screen is a whole PNG of a screen's size", async () => {
    const spec = await scene.start();
    await scene.guestUp(spec);
    const png = Buffer.from(await shoot(spec));
    expect(png.toString("latin1", 1, 4)).toBe("PNG");
    const [width, height] = [png.readUInt32BE(16), png.readUInt32BE(20)];
    expect(width).toBeGreaterThanOrEqual(320);
    expect(height).toBeGreaterThanOrEqual(200);
    const pixels = inflateSync(imageData(png));
    expect(pixels.length).toBe((width * 3 + 1) * height);
    expect(png.toString("latin1", png.length - 8, png.length - 4)).toBe("IEND");
  });

  behaviour("screenshot", "of a domain that is off or not there: refused", async () => {
    const spec = await scene.define();
    await expectRefusal(shoot(spec), "invalid-state");
    await expectRefusal(shoot({ uuid: newId<VmId>() }), "not-found");
  });
}
