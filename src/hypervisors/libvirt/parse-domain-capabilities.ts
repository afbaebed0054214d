import { attribute, child, childrenNamed, parseXml, textAt } from "./xml.ts";

/** What the host can do for guests of one domain type and machine. */
export interface DomainCapabilities {
  /** `kvm`, `qemu` and so on; null where it is not told. */
  readonly domainType: string | null;
  /** Machine type that a name such as `q35` stands for. */
  readonly machine: string | null;
  /** CPU modes that are usable: `host-passthrough`, `maximum`, `host-model`, `custom`. */
  readonly cpuModes: ReadonlySet<string>;
  /** Named CPU models that guests can be given here. */
  readonly usableCpuModels: ReadonlySet<string>;
  readonly maxCpuCount: number | null;
  /** Whether it has firmware of this kind that libvirt finds by itself. */
  readonly hasUefi: boolean;
}

/** Reads domain capabilities, as virConnectGetDomainCapabilities gives them. */
export function parseDomainCapabilities(xml: string): DomainCapabilities {
  const root = parseXml(xml, "domainCapabilities");
  const modes = childrenNamed(child(root, "cpu"), "mode").filter(
    (mode) => attribute(mode, "supported") === "yes",
  );
  const custom = modes.find((mode) => attribute(mode, "name") === "custom");
  const models = childrenNamed(custom, "model").filter((model) => attribute(model, "usable") === "yes");
  const firmwares = childrenNamed(child(root, "os"), "enum").filter(
    (values) => attribute(values, "name") === "firmware",
  );
  const maxCpuCount = Number(attribute(child(root, "vcpu"), "max"));
  return {
    domainType: textAt(root, "domain") ?? null,
    machine: textAt(root, "machine") ?? null,
    cpuModes: new Set(modes.flatMap((mode) => attribute(mode, "name") ?? [])),
    usableCpuModels: new Set(models.map((model) => model.text)),
    maxCpuCount: Number.isSafeInteger(maxCpuCount) && maxCpuCount > 0 ? maxCpuCount : null,
    hasUefi: firmwares.some((values) => childrenNamed(values, "value").some(({ text }) => text === "efi")),
  };
}
