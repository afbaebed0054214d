/** The fenced blocks of shell between the README's marks of its walk, in their order. Pure. */
export function walkBlocks(readme: string): string[] {
  const walk = /<!-- walk:begin -->([\s\S]*?)<!-- walk:end -->/.exec(readme)?.[1];
  if (walk === undefined) throw new Error("the README has no marks of a walk");
  return [...walk.matchAll(/^```bash\n([\s\S]*?)^```$/gm)].map(([, block = ""]) => block);
}
