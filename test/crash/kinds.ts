import { parseImportAllowList } from "../../src/images/address-guard.ts";
import { SYSTEM_TOOLS } from "../../src/images/build/build-tools.ts";
import { imageBuildKind } from "../../src/images/build/image-build.ts";
import { createImageBuilder } from "../../src/images/build/image-builder.ts";
import { createImageFiles } from "../../src/images/image-files.ts";
import { imageImportKind } from "../../src/images/image-import.ts";
import { newId } from "../../src/lib/ids.ts";
import { createSecretBox } from "../../src/lib/secret-box.ts";
import { GIB } from "../../src/lib/units.ts";
import type { KindRegistry } from "../../src/operations/operation-kinds.ts";
import { operationKinds } from "../../src/worker.ts";

/** The registry as the service makes it, to be read only: nothing runs by it here. */
export function everyKind(): KindRegistry {
  const files = createImageFiles({ directory: "unused", reserveBytes: 0 });
  const unread = () => Promise.reject(new Error("no image is read here"));
  const images = { open: unread, openRaw: unread };
  const allow = parseImportAllowList([]);
  const limits = { maxBytes: GIB, maxVirtualSizeBytes: GIB };
  const arrival = { files, qemuImg: null, limits, collect: () => undefined };
  const builder = createImageBuilder({ directory: "unused", tools: SYSTEM_TOOLS, allow, reserveBytes: 0 });
  return operationKinds({
    ...{ installationId: newId(), images, secretBox: createSecretBox(Buffer.alloc(32)) },
    imageCacheBytes: GIB,
    importKind: imageImportKind({ ...arrival, allow }),
    buildKind: imageBuildKind({ ...arrival, builder, atOnce: 1 }),
  });
}
