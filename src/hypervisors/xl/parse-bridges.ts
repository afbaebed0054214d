import { isBridgeName } from "./uri.ts";

/** A bridge's directory in /sys/class/net, in which the kernel has one named `bridge`. */
const BRIDGE_PATH = /^\/sys\/class\/net\/([^/]+)\/bridge\/?$/;

/**
 * Reads the paths that match `/sys/class/net/*\/bridge`, one a line, as the names of the host's bridges. A name that
 * could not be given to xl is left out, and so is the pattern itself, which a shell leaves where nothing matches.
 */
export function parseBridges(text: string): readonly string[] {
  const names = text.split("\n").flatMap((line) => BRIDGE_PATH.exec(line)?.[1] ?? []);
  return [...new Set(names.filter(isBridgeName))].toSorted();
}

const DEFAULT_BRIDGE = /^\s*vif\.default\.bridge\s*=\s*(?:"([^"\\\n]*)"|'([^'\\\n]*)')\s*(?:#.*)?$/;
/** The bridge that xl takes where neither a guest nor xl.conf names one. */
const XL_BRIDGE = "xenbr0";

/** The bridge that /etc/xen/xl.conf says is for guests that name none. `text` is empty where there is no such file. */
export function parseDefaultBridge(text: string): string {
  const [, double, single] =
    text.split("\n").reduce<RegExpExecArray | null>(
      // As in all of xl's files, the last word counts.
      (last, line) => DEFAULT_BRIDGE.exec(line) ?? last,
      null,
    ) ?? [];
  const bridge = double ?? single ?? "";
  return isBridgeName(bridge) ? bridge : XL_BRIDGE;
}
