// A client of QMP, QEMU's protocol for managing a machine, over the standard input and output of a QEMU started with
// `-qmp stdio`.
import { createInterface } from "node:readline";
import { parseJson } from "../parse-json.mjs";

/**
 * @typedef {object} Qmp
 * @property {(name: string, args?: Readonly<Record<string, unknown>>) => Promise<unknown>} execute runs one command;
 *   rejects with what QEMU says, and when QEMU ends
 */

/**
 * @param {import("node:stream").Readable} output of QEMU
 * @param {import("node:stream").Writable} input of QEMU
 * @returns {Qmp}
 */
export function connectQmp(output, input) {
  /** @type {{ resolve: (value: unknown) => void, reject: (error: Error) => void }[]} */
  const waiting = [];
  let closed = false;
  const lines = createInterface({ input: output });
  lines.on("line", (line) => {
    const message = asRecord(parseJson(line));
    if ("return" in message) waiting.shift()?.resolve(message["return"]);
    else if ("error" in message) waiting.shift()?.reject(new Error(`QEMU: ${describe(message["error"])}`));
    // Else its greeting or an event: who waits for something asks for it.
  });
  lines.on("close", () => {
    closed = true;
    for (const { reject } of waiting.splice(0)) reject(new Error("QEMU has ended"));
  });
  input.on("error", () => undefined); // QEMU is gone: that shows when its output closes

  /** @type {Qmp["execute"]} */
  const execute = (name, args = {}) =>
    new Promise((resolve, reject) => {
      if (closed) {
        reject(new Error("QEMU has ended"));
        return;
      }
      waiting.push({ resolve, reject });
      input.write(`${JSON.stringify({ execute: name, arguments: args })}\n`);
    });
  const ready = execute("qmp_capabilities");
  ready.catch(() => undefined); // told to whoever runs a command
  return { execute: async (name, args) => ready.then(() => execute(name, args)) };
}

/** @param {unknown} error */
function describe(error) {
  const { desc } = asRecord(error);
  return typeof desc === "string" ? desc : JSON.stringify(error);
}

/**
 * @param {unknown} value
 * @returns {Readonly<Record<string, unknown>>}
 */
export function asRecord(value) {
  return typeof value === "object" && value !== null ? { ...value } : {};
}
