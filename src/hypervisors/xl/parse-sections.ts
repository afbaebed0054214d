import { unreadable } from "./errors.ts";

const TITLE = /^== ([a-z.]+)$/;

/**
 * Reads what the host program tells, by the titles of its sections. Throws HypervisorError (`failed`) where a section
 * is missed: then the host program did not come to its end.
 */
export class Sections {
  readonly #texts = new Map<string, string>();

  constructor(text: string) {
    let title = "";
    let lines: string[] = [];
    for (const line of text.split("\n")) {
      const next = TITLE.exec(line)?.[1];
      if (next === undefined) lines.push(line);
      else {
        this.#texts.set(title, lines.join("\n"));
        [title, lines] = [next, []];
      }
    }
    this.#texts.set(title, lines.join("\n"));
  }

  text(title: string): string {
    const text = this.#texts.get(title);
    if (text === undefined) throw unreadable("the host program", `it does not tell '${title}'`);
    return text;
  }

  /** The lines of a section, without empty ones. */
  lines(title: string): readonly string[] {
    return this.text(title)
      .split("\n")
      .filter((line) => line !== "");
  }
}
