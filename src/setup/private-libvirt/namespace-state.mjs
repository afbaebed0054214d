// Reads what was written about a namespace, to adopt it. Pure.
import { parseJson } from "../parse-json.mjs";

/**
 * @param {string} text JSON of a Namespace
 * @returns {import("./namespace.mjs").Namespace | undefined} undefined for anything else
 */
export function readNamespace(text) {
  const value = parse(text);
  return isNamespace(value) ? value : undefined;
}

/**
 * @param {string} text
 * @returns {unknown}
 */
function parse(text) {
  try {
    return parseJson(text);
  } catch {
    return undefined;
  }
}

/**
 * @param {unknown} value
 * @returns {value is import("./namespace.mjs").Namespace}
 */
function isNamespace(value) {
  if (!isRecord(value) || typeof value["ownNetwork"] !== "boolean") return false;
  const { holder, cgroups } = value;
  if (!isRecord(holder) || typeof holder["pid"] !== "number" || typeof holder["startTime"] !== "string")
    return false;
  if (!isRecord(cgroups) || ![1, 2, "none"].some((version) => version === cgroups["version"])) return false;
  return [cgroups["birthDirs"], cgroups["dirs"]].every(isTexts);
}

/**
 * @param {unknown} value
 * @returns {value is Record<string, unknown>}
 */
function isRecord(value) {
  return typeof value === "object" && value !== null;
}

/** @param {unknown} value */
function isTexts(value) {
  return Array.isArray(value) && value.every((item) => typeof item === "string");
}
