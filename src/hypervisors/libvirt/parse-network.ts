import { attribute, child, parseXml, textAt, unreadable } from "./xml.ts";

/** What we take from a network's XML. */
export interface NetworkFacts {
  readonly name: string;
  readonly uuid: string | null;
  readonly bridge: string | null;
  /** libvirt's forward mode (`nat`, `route`, `open`, `bridge`, `hostdev` …), or `isolated` where it forwards nothing. */
  readonly mode: string;
}

/** Reads a network's XML. libvirt's own default of `<forward/>` without a mode is `nat`. */
export function parseNetwork(xml: string): NetworkFacts {
  const root = parseXml(xml, "network");
  const name = textAt(root, "name");
  if (name === undefined) throw unreadable("network", "it has no name");
  const forward = child(root, "forward");
  return {
    name,
    uuid: textAt(root, "uuid") ?? null,
    bridge: attribute(child(root, "bridge"), "name") ?? null,
    mode: forward === undefined ? "isolated" : (attribute(forward, "mode") ?? "nat"),
  };
}
