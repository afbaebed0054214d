import type { InstallationId } from "../../lib/ids.ts";
import type { HostLink } from "./host-link.ts";
import type { XlNetwork, XlPool } from "./uri.ts";

/** What domains are defined with on a host: what its URI and its own settings name. */
export interface HostNames {
  readonly pools: readonly XlPool[];
  readonly networks: readonly XlNetwork[];
  /** The bridge of the network `default`, unless the URI names another. */
  readonly defaultBridge: string;
}

/** What the parts of a connection share. */
export interface HostContext extends HostNames {
  readonly link: HostLink;
  readonly installationId: InstallationId;
  /** The directory of guests' console logs; null where the host keeps none. */
  readonly consoleLogs: string | null;
  /** Tells who watches that we changed a domain: the host tells of some changes only. */
  readonly changed: (uuid: string, detail: string) => void;
}
