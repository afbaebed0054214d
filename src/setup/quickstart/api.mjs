// The few calls that quickstart makes, as any client would make them.
import { readFileSync } from "node:fs";

/**
 * @typedef {(method: string, path: string, body?: unknown) => Promise<any>} Send the answer's JSON; null for a 404 of a GET
 * @typedef {object} QuickstartApi
 * @property {Send} send
 * @property {(path: string, file: string) => Promise<void>} upload
 * @property {(path: string) => Promise<string>} text
 * @property {AbortSignal} signal
 */

/**
 * @param {{ url: string, token: string }} service
 * @param {AbortSignal} signal ends every call
 * @returns {QuickstartApi}
 */
export function createApi({ url, token }, signal) {
  const authorization = `Bearer ${token}`;
  /** @param {Response} answer */
  const refuse = async (answer) => {
    const text = await answer.text();
    throw new Error(`${answer.url.slice(url.length)} was answered with ${answer.status}: ${detailOf(text)}`);
  };
  return {
    signal,
    async send(method, path, body) {
      const json = body === undefined ? {} : { body: JSON.stringify(body) };
      const headers = {
        authorization,
        ...(body === undefined ? {} : { "content-type": "application/json" }),
      };
      const answer = await fetch(`${url}${path}`, { method, headers, signal, ...json });
      if (answer.status === 404 && method === "GET") return null;
      if (!answer.ok) await refuse(answer);
      return answer.status === 204 ? null : await answer.json();
    },
    async upload(path, file) {
      const headers = { authorization, "content-type": "application/octet-stream" };
      const answer = await fetch(`${url}${path}`, {
        method: "PUT",
        headers,
        signal,
        body: readFileSync(file),
      });
      if (!answer.ok) await refuse(answer);
    },
    async text(path) {
      const answer = await fetch(`${url}${path}`, { headers: { authorization }, signal });
      if (!answer.ok) await refuse(answer);
      return await answer.text();
    },
  };
}

/** @param {string} text */
function detailOf(text) {
  try {
    /** @type {unknown} */
    const problem = JSON.parse(text);
    if (typeof problem === "object" && problem !== null && "detail" in problem) return String(problem.detail);
  } catch {
    // Not JSON: shown as it is.
  }
  return text.slice(0, 500);
}
