/** What tells a domain of the host itself. */
interface DomainIdentity {
  readonly uuid: string;
  readonly domid?: number;
  readonly name?: string | null;
}

const NO_UUID = "00000000-0000-0000-0000-000000000000";
const OWN_NAMES: ReadonlySet<string> = new Set(["domain-0", "xenstore", "dom0"]);

/**
 * True for Domain-0, the host itself (`xl shutdown 0` powers it off), and for the domain of its xenstore. They are
 * listed, and never changed, whatever mark anybody gives them.
 */
export function isHostDomain({ uuid, domid, name }: DomainIdentity): boolean {
  return uuid === NO_UUID || domid === 0 || (typeof name === "string" && isHostDomainName(name));
}

/** True for a name that the host's own domains have. */
export function isHostDomainName(name: string): boolean {
  return OWN_NAMES.has(name.toLowerCase());
}
