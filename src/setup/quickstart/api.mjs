// The generated SDK, with what a script wants on top: an answer or an exception.
import { createClient, createConfig } from "../../../openapi/sdk/client/index.ts";

/**
 * @param {{ url: string, token: string }} service
 * @param {AbortSignal} signal ends every call
 */
export function connect({ url, token }, signal) {
  return createClient(
    createConfig({ baseUrl: url, auth: token, headers: { authorization: `Bearer ${token}` }, signal }),
  );
}

/** @typedef {ReturnType<typeof connect>} Client */

/**
 * @template T
 * @typedef {Promise<{ data?: T | undefined, error?: unknown, response?: Response | undefined }>} Request
 */

/**
 * @template T
 * @param {Request<T>} request
 * @returns {Promise<NonNullable<T>>}
 * @throws {Error} with what the API said was wrong
 */
export async function answerOf(request) {
  const answer = await findAnswer(request);
  if (answer === null) throw new Error("the API said that there is no such thing");
  return answer;
}

/**
 * @template T
 * @param {Request<T>} request
 * @returns {Promise<NonNullable<T> | null>} null for a 404
 * @throws {Error} with what the API said was wrong
 */
export async function findAnswer(request) {
  const { data, error, response } = await request;
  if (data !== undefined && data !== null) return data;
  if (response?.status === 404) return null;
  if (error instanceof Error) throw error;
  throw new Error(`the API refused with ${response?.status ?? "no status"}: ${detailOf(error)}`);
}

/** @param {unknown} problem */
function detailOf(problem) {
  if (typeof problem === "object" && problem !== null && "detail" in problem) return String(problem.detail);
  return String(problem);
}
