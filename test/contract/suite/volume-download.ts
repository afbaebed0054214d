import { randomBytes } from "node:crypto";
import { buffer } from "node:stream/consumers";
import { expect } from "vitest";
import type { Behaviour } from "./record.ts";
import { expectRefusal, present, type Scene } from "./scene.ts";

const MIB = 1 << 20;

/** What was written into a volume is given out again. */
export function volumeDownloadBehaviours(scene: Scene, behaviour: Behaviour): void {
  behaviour(
    "volumeDownload",
    "a volume's content is given out as it was written, again and again",
    async () => {
      const ref = scene.volume();
      const volumes = present(scene.connection.volumes);
      await volumes.createVolume({ ...ref, format: "raw", capacityBytes: 3 * MIB }, scene.call());
      const content = randomBytes(3 * MIB);
      const whole = (async function* () {
        yield content;
      })();
      await volumes.uploadVolume(ref, whole, content.length, scene.call());
      for (let time = 0; time < 2; time++) {
        const download = await present(scene.connection.downloadVolume)(ref, scene.call());
        expect(download.sizeBytes).toBe(content.length);
        expect((await buffer(download.content)).equals(content)).toBe(true);
      }
    },
  );

  behaviour("volumeDownload", "one that is given up leaves the connection as it was", async () => {
    const ref = scene.volume();
    const spec = { ...ref, format: "raw", capacityBytes: 32 * MIB } as const;
    await present(scene.connection.volumes).createVolume(spec, scene.call());
    const { content } = await present(scene.connection.downloadVolume)(ref, scene.call());
    content.destroy();
    expect(await present(scene.connection.volumes).observeVolume(ref, scene.call())).not.toBeNull();
  });

  behaviour("volumeDownload", "a volume that is not there says so", async () => {
    await expectRefusal(present(scene.connection.downloadVolume)(scene.volume(), scene.call()), "not-found");
  });
}
