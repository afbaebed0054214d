// The serial console in xterm.js.
import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";
import { consoleElement, socketUrl, tell, tellClose } from "./connection.mjs";

giveStylesTheNonce();
const terminal = new Terminal({ cursorBlink: true, scrollback: 10_000, convertEol: false });
const fit = new FitAddon();
terminal.loadAddon(fit);
terminal.open(consoleElement());
fit.fit();
window.addEventListener("resize", () => {
  fit.fit();
});

const socket = new WebSocket(socketUrl());
socket.binaryType = "arraybuffer";
let wasOpen = false;
socket.addEventListener("open", () => {
  wasOpen = true;
  tell("Connected. Press Enter if nothing shows.");
  terminal.focus();
});
socket.addEventListener("message", (/** @type {MessageEvent<ArrayBuffer>} */ { data }) => {
  terminal.write(new Uint8Array(data));
});
socket.addEventListener("close", (event) => {
  tellClose(event, wasOpen);
  terminal.options.disableStdin = true;
});
const encoder = new TextEncoder();
terminal.onData((text) => {
  if (socket.readyState === WebSocket.OPEN) socket.send(encoder.encode(text));
});
// Mouse reports and the like are bytes, not text.
terminal.onBinary((text) => {
  if (socket.readyState === WebSocket.OPEN) socket.send(Uint8Array.from(text, (char) => char.charCodeAt(0)));
});

/** xterm.js makes style elements, which the page's policy takes with its nonce only. */
function giveStylesTheNonce() {
  const nonce = document.getElementById("page")?.dataset["nonce"] ?? "";
  const create = /** @type {(...args: readonly unknown[]) => HTMLElement} */ (
    Reflect.get(document, "createElement")
  );
  Reflect.set(document, "createElement", (/** @type {unknown[]} */ ...args) => {
    const element = create.apply(document, args);
    if (element instanceof HTMLStyleElement) element.nonce = nonce;
    return element;
  });
}
