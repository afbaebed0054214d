/** Reads what apt tells of this machine's own sources. */

/** Tab-separated for `apt-get indextargets --format`. */
export const INDEX_FORMAT = "$(REPO_URI)\t$(ORIGIN)\t$(CODENAME)\t";

export interface MachineMirrors {
  /** Where Debian itself comes from; null: from nowhere that is known. */
  readonly debian: string | null;
  readonly security: string | null;
}

/** The first http or https sources that are Debian's own. */
export function parseIndexTargets(output: string): MachineMirrors {
  const targets = output.split("\n").flatMap((line) => {
    const [uri = "", origin = "", codename = ""] = line.split("\t");
    // Lists that were never fetched have no origin; then the path has to tell.
    const isDebian = origin === "Debian" || /\/debian(-security)?\/?$/.test(uri);
    const isSecurity = codename.endsWith("-security") || /-security\/?$/.test(uri);
    return /^https?:\/\/[^\s[\]]+$/.test(uri) && isDebian ? [{ uri, isSecurity }] : [];
  });
  return {
    debian: targets.find(({ isSecurity }) => !isSecurity)?.uri ?? null,
    security: targets.find(({ isSecurity }) => isSecurity)?.uri ?? null,
  };
}

/** Variables that hand this machine's proxies on, from `apt-config dump Acquire::http::Proxy Acquire::https::Proxy`. */
export function parseProxies(output: string): Record<string, string> {
  const proxies: Record<string, string> = {};
  for (const [, scheme = "", url = ""] of output.matchAll(/^Acquire::(https?)::Proxy "([^"]*)";$/gm))
    if (/^https?:\/\//.test(url)) proxies[`${scheme}_proxy`] = url;
  return proxies;
}
