import { parseImportAllowList } from "../../src/images/address-guard.ts";
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
  const images = { open: () => Promise.reject(new Error("no image is read here")) };
  const importKind = imageImportKind({
    ...{ files, qemuImg: null, limits: { maxBytes: GIB, maxVirtualSizeBytes: GIB } },
    allow: parseImportAllowList([]),
    collect: () => undefined,
  });
  return operationKinds({
    installationId: newId(),
    images,
    importKind,
    secretBox: createSecretBox(Buffer.alloc(32)),
  });
}
