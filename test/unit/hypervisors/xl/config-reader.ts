/**
 * A small reader of xl's configuration syntax, written from the manual page xl.cfg(5) and apart from the writer: what
 * the writer wrote is read back with it. Throws for what xl refuses too.
 */

export type ConfigValue = string | readonly string[];

/** Settings by name; a name that is set twice is refused, though xl takes the last. */
export function readConfig(text: string): ReadonlyMap<string, ConfigValue> {
  const settings = new Map<string, ConfigValue>();
  for (const line of text.split("\n")) {
    if (line === "") continue;
    const reader = new LineReader(line);
    const name = reader.name();
    reader.skip("=");
    const value = reader.value();
    reader.end();
    if (settings.has(name)) throw new Error(`'${name}' is set twice`);
    settings.set(name, value);
  }
  return settings;
}

/** A disk's specification: keys up to `target`, which takes the rest, save a comma at its end. */
export function readDisk(text: string): Readonly<Record<string, string>> {
  const parameters: Record<string, string> = {};
  let rest = text;
  while (!rest.startsWith("target=")) {
    const end = rest.indexOf(",");
    const [key, value] = (end === -1 ? rest : rest.slice(0, end)).split("=", 2);
    if (key === undefined || value === undefined || end === -1)
      throw new Error(`a disk without target: ${text}`);
    parameters[key] = value;
    rest = rest.slice(end + 1);
  }
  return { ...parameters, target: rest.slice("target=".length).replace(/,$/, "") };
}

class LineReader {
  readonly #line: string;
  #at = 0;

  constructor(line: string) {
    this.#line = line;
  }

  name(): string {
    return this.#take(/[A-Za-z_][A-Za-z0-9_.-]*/y, "a name");
  }

  value(): ConfigValue {
    if (this.#next() !== "[") return this.#scalar();
    this.skip("[");
    const values: string[] = [];
    while (this.#next() !== "]") {
      values.push(this.#scalar());
      if (this.#next() === ",") this.skip(",");
    }
    this.skip("]");
    return values;
  }

  skip(character: string): void {
    if (this.#next() !== character) throw new Error(`'${character}' is missing in ${this.#line}`);
    this.#at += 1;
  }

  end(): void {
    if (this.#next() !== undefined) throw new Error(`more than one value in ${this.#line}`);
  }

  #scalar(): string {
    const quote = this.#next();
    return quote === '"' || quote === "'" ? this.#quoted(quote) : this.#take(/\d+/y, "a number");
  }

  #quoted(quote: string): string {
    let text = "";
    for (this.#at += 1; ; this.#at += 1) {
      const character = this.#line[this.#at];
      if (character === undefined) throw new Error(`a string has no end in ${this.#line}`);
      if (character === quote) break;
      if (character === "\\") {
        this.#at += 1;
        const escaped = this.#line[this.#at] ?? "";
        if (!["\\", '"', "'"].includes(escaped))
          throw new Error(`an escape that is not read the same everywhere`);
        text += escaped;
      } else {
        text += character;
      }
    }
    this.#at += 1;
    return text;
  }

  /** The next character that is no blank. */
  #next(): string | undefined {
    while (this.#line[this.#at] === " ") this.#at += 1;
    return this.#line[this.#at];
  }

  #take(pattern: RegExp, what: string): string {
    this.#next();
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#line)?.[0];
    if (found === undefined) throw new Error(`${what} is missing in ${this.#line}`);
    this.#at += found.length;
    return found;
  }
}
