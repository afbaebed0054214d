import { expect, it } from "vitest";
import { volumeAbility } from "../../../../src/hypervisors/libvirt/volumes.ts";
import { errorCode } from "../../../../src/libvirt-rpc/index.ts";
import { call, fakeCalls, refuse } from "./fake-calls.ts";
import { fixture } from "./fixture.ts";

const spec = {
  pool: "default",
  name: "tiny-base.qcow2",
  format: "qcow2",
  capacityBytes: 268_435_456,
} as const;
const pool = { name: "default", uuid: "0192aaaa-0000-7000-8000-000000000002" };

/** A pool that has the volume, or gets it by the call that makes it. */
function poolWith({ there }: { readonly there: boolean }) {
  let exists = there;
  return fakeCalls({
    storagePoolLookupByName: () => ({ pool }),
    storageVolLookupByName: () =>
      exists ? { volume: spec } : refuse(errorCode.noStorageVol, "no such volume"),
    storageVolGetXmlDesc: () => ({ xml: fixture("volume-qcow2-9.0.0") }),
    storageVolCreateXml: () => {
      exists = true;
      return {};
    },
  });
}

it("a volume that is there already is taken as it is: whoever made it may have died before it said so", async () => {
  const calls = poolWith({ there: true });
  const made = await volumeAbility(calls).createVolume(spec, call);
  expect(made).toMatchObject({ name: spec.name, capacityBytes: spec.capacityBytes });
  expect(calls.asked).not.toContain("storageVolCreateXml");
});

it("a volume that is not there is made", async () => {
  const calls = poolWith({ there: false });
  expect(await volumeAbility(calls).createVolume(spec, call)).toMatchObject({ name: spec.name });
  expect(calls.asked.filter((name) => name === "storageVolCreateXml")).toHaveLength(1);
});
