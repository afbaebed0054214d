/** A small mistake put into the source, and the test that must notice it. */
export interface Mutant {
  readonly name: string;
  /** What is lost without the line that it changes. */
  readonly breaks: string;
  readonly edits: readonly Edit[];
  readonly test: NamedTest;
}

/** `find` stands exactly once in the file, else the mutant no longer applies. */
export interface Edit {
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

export interface NamedTest {
  readonly file: string;
  /** A part of its name, as it stands in the file. */
  readonly title: string;
}

/** Puts one edit into the text of its file. Throws where it does not apply. */
export function applyEdit(text: string, { file, find, replace }: Edit): string {
  const parts = text.split(find);
  if (parts.length !== 2)
    throw new Error(`${file}: found ${parts.length - 1} times instead of once: ${JSON.stringify(find)}`);
  return parts.join(replace);
}
