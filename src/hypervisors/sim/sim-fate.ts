/** What becomes of one call, decided before it is sent. */
export interface Fate {
  readonly outcome: "answer" | "fail" | "hang" | "lose-answer";
  /** How long the host takes in all, in milliseconds. */
  readonly latencyMs: number;
}

export interface FateSettings {
  readonly name: string;
  readonly seed: number | null;
  readonly latencyMs: number;
  readonly failRate: number;
  readonly hangRate: number;
  readonly loseAnswerRate: number;
}

/**
 * The fate of the n-th call (from 0) of a kind. A pure function: the same seed, kind and n give the same fate, in
 * whatever order calls of different kinds come.
 */
export function fateOf(settings: FateSettings, kind: string, n: number): Fate {
  const seed = settings.seed ?? hashText(settings.name);
  const random = randomFrom(hashText(`${seed}:${kind}:${n}`));
  const latencyMs = Math.round(settings.latencyMs * (0.5 + random()));
  const draw = random();
  const { failRate, hangRate, loseAnswerRate } = settings;
  if (draw < failRate) return { outcome: "fail", latencyMs };
  if (draw < failRate + hangRate) return { outcome: "hang", latencyMs };
  if (draw < failRate + hangRate + loseAnswerRate) return { outcome: "lose-answer", latencyMs };
  return { outcome: "answer", latencyMs };
}

/** FNV-1a, 32 bits: spreads short texts well enough to seed the generator. */
function hashText(text: string): number {
  let hash = 0x811c_9dc5;
  for (let index = 0; index < text.length; index += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x0100_0193);
  }
  return hash >>> 0;
}

/** The generator mulberry32: numbers in [0, 1), all fixed by the seed. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b_79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}
