declare module "@novnc/novnc" {
  /** What the page uses of noVNC's RFB object; docs/API.md of the package. */
  export default class RFB extends EventTarget {
    constructor(target: HTMLElement, channel: WebSocket);
    scaleViewport: boolean;
    focus(): void;
  }
}
