import type { ConsoleKind } from "./console-schemas.ts";

/** The pages' HTML. Pure. Everything that they load is served by us; the policy allows nothing else. */

export const ASSETS_PATH = "/console/assets";

const TITLES: Readonly<Record<ConsoleKind, string>> = { serial: "serial console", vnc: "screen" };

/** Names that the pages' modules import, and the files behind them. */
const IMPORTS = {
  "@xterm/xterm": `${ASSETS_PATH}/xterm/xterm.mjs`,
  "@xterm/addon-fit": `${ASSETS_PATH}/xterm/addon-fit.mjs`,
  "@novnc/novnc": `${ASSETS_PATH}/novnc/core/rfb.js`,
};

/** A page that connects to the ticket in its own path. */
export function consolePage(vmName: string, kind: ConsoleKind, nonce: string): string {
  const title = escapeHtml(`${vmName}: ${TITLES[kind]}`);
  const style = kind === "serial" ? `<link rel="stylesheet" href="${ASSETS_PATH}/xterm/xterm.css">\n` : "";
  return page(
    title,
    `${style}<script type="importmap" nonce="${nonce}">${JSON.stringify({ imports: IMPORTS })}</script>
<script type="module" src="${ASSETS_PATH}/page/${kind}.mjs" data-nonce="${nonce}" id="page"></script>`,
    `<header><h1>${title}</h1><p id="status" role="status">Connecting …</p></header>
<main id="console"></main>`,
  );
}

/** What a browser is shown that comes too late. */
export function goneConsolePage(): string {
  return page(
    "Console",
    "",
    `<header><h1>This link is over</h1>
<p role="status">A link to a console is good for one connection within a minute. Ask for a new one:
<code>POST /v1/vms/{vm}/console</code></p></header>`,
  );
}

/**
 * What a page may load and do. Styles of xterm.js are elements that it makes, which get the nonce; cursors and pictures
 * of noVNC are data and blobs.
 */
export function consolePolicy(nonce: string): string {
  return [
    "default-src 'none'",
    `script-src 'self' 'nonce-${nonce}'`,
    `style-src 'self' 'nonce-${nonce}'`,
    "img-src 'self' data: blob:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; ");
}

function page(title: string, head: string, body: string): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="${ASSETS_PATH}/page/console.css">
${head}
</head>
<body>
${body}
</body>
</html>
`;
}

function escapeHtml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}
