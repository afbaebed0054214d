// What both pages need: where their WebSocket is, and how to tell what becomes of it.

/** @returns {string} the WebSocket of the ticket in this page's own path */
export function socketUrl() {
  const ticket = location.pathname.split("/").at(-1) ?? "";
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  return `${scheme}://${location.host}/v1/consoles/${ticket}`;
}

/** @param {string} text */
export function tell(text) {
  const status = document.getElementById("status");
  if (status !== null) status.textContent = text;
}

/**
 * @param {{ readonly code: number, readonly reason: string }} close
 * @param {boolean} wasOpen
 */
export function tellClose({ code, reason }, wasOpen) {
  if (reason !== "") tell(reason);
  else if (wasOpen) tell(`The connection ended (${code}). Ask for a new link.`);
  else tell("The connection did not come about: the link was used or is over. Ask for a new one.");
}

/** @returns {HTMLElement} */
export function consoleElement() {
  const element = document.getElementById("console");
  if (element === null) throw new Error("the page has no place for the console");
  return element;
}
