// Which Xen hosts can be built: Debian releases with the Xen they ship.

/** @typedef {"4.17" | "4.20"} XenVersion */

/** @type {Readonly<Record<XenVersion, { suite: string }>>} */
export const XEN_FLAVOURS = Object.freeze({ 4.17: { suite: "bookworm" }, "4.20": { suite: "trixie" } });

/** The Xen that `npm test` runs against. */
export const DEFAULT_XEN_VERSION = /** @type {const} */ ("4.17");

/**
 * Which Xen tests run against.
 * @param {string | undefined} wanted as DROVER_TEST_XEN has it; the default where it is empty or not set
 * @returns {XenVersion}
 * @throws {Error} when there is no such flavour
 */
export function xenVersionOf(wanted) {
  if (wanted === undefined || wanted === "") return DEFAULT_XEN_VERSION;
  if (wanted === "4.17" || wanted === "4.20") return wanted;
  const known = Object.keys(XEN_FLAVOURS).join(" or ");
  throw new Error(`there is no Xen host with version "${wanted}": set DROVER_TEST_XEN to ${known}`);
}
