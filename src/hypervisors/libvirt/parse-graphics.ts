import { attribute, child, childrenNamed, parseXml, wholeNumber } from "./xml.ts";

/**
 * The TCP port on which a running domain's VNC server listens, from its live XML; null where it has none, or none yet.
 * Throws HypervisorError (`failed`) for what is no domain's XML.
 */
export function parseVncPort(xml: string): number | null {
  const graphics = childrenNamed(child(parseXml(xml, "domain"), "devices"), "graphics");
  const vnc = graphics.find((element) => attribute(element, "type") === "vnc");
  const port = attribute(vnc, "port");
  // -1 stands in the definition of a domain that is off, and no port where the server listens on a socket.
  if (port === undefined || port === "-1") return null;
  const number = wholeNumber(port, "domain", "the port of <graphics>");
  return number >= 1 && number <= 65_535 ? number : null;
}
