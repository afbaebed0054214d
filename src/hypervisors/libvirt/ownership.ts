/**
 * The mark that a domain of ours carries in its metadata: which installation made it, and for which VM. The URI
 * is a name, not an address: `.invalid` can never be registered, so it belongs to nobody (RFC 2606).
 */
export const MARK_NAMESPACE = "https://drover.invalid/xmlns/domain/1";

/** The name of the mark's element, without prefix. */
export const MARK_ELEMENT = "vm";

/** The same for a network. */
export const NETWORK_MARK_NAMESPACE = "https://drover.invalid/xmlns/network/1";
export const NETWORK_MARK_ELEMENT = "network";

export interface OwnershipMark {
  readonly installationId: string | null;
  readonly vmId: string | null;
}

/** No mark: the domain is somebody else's. */
export const NO_MARK: OwnershipMark = { installationId: null, vmId: null };
