import { describe, expect, it } from "vitest";
import { createDrivers, driverForUri } from "../../../src/hypervisors/index.ts";

// Nothing is opened before the first connection, so no database is needed here.
const drivers = createDrivers({ databaseUrl: "postgresql://nobody@localhost/none" });

describe("the registry of drivers", () => {
  it("finds the driver by the URI's scheme", () => {
    const found = driverForUri(drivers, "sim+kvm://n1?numa=1&cpus=4");
    if ("error" in found) throw new Error(found.error);
    expect(found.driver.name).toBe("sim");
    expect(found.parsed).toEqual({ hypervisor: "kvm", uri: "sim+kvm://n1?cpus=4" });
  });

  it("passes on what the driver finds wrong", () => {
    expect(driverForUri(drivers, "sim+kvm://n1?speed=4")).toMatchObject({
      error: expect.stringContaining("speed") as string,
    });
  });

  it.each(["", "n1", "sim+kvm", "http://n1/", "SIM+KVM://n1", "__proto__://n1"])(
    "refuses %j with the schemes there are",
    (uri) => {
      const found = driverForUri(drivers, uri);
      expect(found).toHaveProperty("error");
      if ("error" in found) for (const { schemes } of drivers) expect(found.error).toContain(schemes[0]);
    },
  );

  it("has no scheme twice, and every name once", () => {
    const schemes = drivers.flatMap((driver) => driver.schemes);
    expect(new Set(schemes).size).toBe(schemes.length);
    expect(new Set(drivers.map(({ name }) => name)).size).toBe(drivers.length);
  });
});
