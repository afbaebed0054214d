import { describe, expect, it } from "vitest";
import { changesDefinition, toHostEvent } from "../../../../src/hypervisors/libvirt/events.ts";
import type { DomainEvent } from "../../../../src/libvirt-rpc/index.ts";

const domain = { name: "a", uuid: "0192aaaa-0000-7000-8000-00000000abcd", id: 1 };
const base = { callbackId: 1, domain };

describe("an event of libvirt", () => {
  it.each<[DomainEvent, string | null]>([
    [{ ...base, kind: "lifecycle", event: 0, detail: 1 }, "defined: updated"],
    [{ ...base, kind: "lifecycle", event: 2, detail: 0 }, "started: booted"],
    [{ ...base, kind: "lifecycle", event: 3, detail: 2 }, "suspended: ioerror"],
    [{ ...base, kind: "lifecycle", event: 5, detail: 5 }, "stopped: failed"],
    [{ ...base, kind: "lifecycle", event: 8, detail: 0 }, "crashed: panicked"],
    [{ ...base, kind: "lifecycle", event: 5, detail: 77 }, "stopped"],
    [{ ...base, kind: "lifecycle", event: 77, detail: 0 }, "lifecycle-77"],
    [{ ...base, kind: "reboot" }, "reboot"],
    [
      { ...base, kind: "ioError", srcPath: "/a", devAlias: "d", action: 1, reason: "enospc" },
      "io-error: enospc",
    ],
    [{ ...base, kind: "ioError", srcPath: "/a", devAlias: "d", action: 1, reason: "" }, "io-error"],
    [{ ...base, kind: "controlError" }, "control-error"],
    [{ ...base, kind: "metadataChange", type: 2, uri: null }, "metadata-changed"],
    [{ ...base, kind: "agentLifecycle", state: 1, reason: 2 }, "agent: connected"],
    [{ ...base, kind: "agentLifecycle", state: 2, reason: 2 }, "agent: disconnected"],
    [{ ...base, kind: "balloonChange", actual: 1n }, null],
  ])("%o is told as %s", (event, detail) => {
    expect(toHostEvent(event)).toEqual(
      detail === null ? null : { kind: "domain-changed", uuid: domain.uuid, detail },
    );
  });

  it("makes us read a definition anew only where it can have changed it", () => {
    expect(changesDefinition({ ...base, kind: "lifecycle", event: 0, detail: 1 })).toBe(true);
    expect(changesDefinition({ ...base, kind: "lifecycle", event: 5, detail: 0 })).toBe(true);
    expect(changesDefinition({ ...base, kind: "metadataChange", type: 2, uri: null })).toBe(true);
    expect(changesDefinition({ ...base, kind: "lifecycle", event: 2, detail: 2 })).toBe(true);
    expect(changesDefinition({ ...base, kind: "agentLifecycle", state: 2, reason: 2 })).toBe(true);
    for (const event of [2, 3, 4])
      expect(changesDefinition({ ...base, kind: "lifecycle", event, detail: 0 })).toBe(false);
    expect(changesDefinition({ ...base, kind: "reboot" })).toBe(false);
  });
});
