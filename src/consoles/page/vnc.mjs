// The screen in noVNC.
import RFB from "@novnc/novnc";
import { consoleElement, socketUrl, tell, tellClose } from "./connection.mjs";

// The socket is made here, so that the page hears why it is closed.
const socket = new WebSocket(socketUrl());
let wasOpen = false;
socket.addEventListener("close", (event) => {
  tellClose(event, wasOpen);
});
const rfb = new RFB(consoleElement(), socket);
rfb.scaleViewport = true;
rfb.addEventListener("connect", () => {
  wasOpen = true;
  tell("Connected.");
  rfb.focus();
});
