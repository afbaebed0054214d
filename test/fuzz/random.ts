/** Choices that a seed fixes. Each request of a run draws from its own, so that request 812 is the same by itself. */
export interface Random {
  /** An integer from 0 to `end` - 1. */
  below(end: number): number;
  /** True in a share of cases, 0 to 1. */
  chance(share: number): boolean;
  pick<Item>(list: readonly Item[]): Item;
}

// Marsaglia's xorshift over 32 bits: its state is never 0.
function step(state: number): number {
  let next = state;
  next ^= next << 13;
  next ^= next >>> 17;
  next ^= next << 5;
  return next >>> 0;
}

// 2^32 over the golden ratio: neighbours among seeds and indexes begin far apart.
const SPREAD = 0x9e3779b1;
const WARM_UP_STEPS = 4;

export function createRandom(seed: number, index: number): Random {
  let state = (Math.imul(seed ^ 0x5bd1e995, SPREAD) ^ Math.imul(index + 1, 0x85ebca6b)) >>> 0 || 1;
  for (let count = 0; count < WARM_UP_STEPS; count++) state = step(state);
  const below = (end: number): number => {
    state = step(state);
    return Math.floor((state / 2 ** 32) * end);
  };
  return {
    below,
    chance: (share) => below(1_000_000) < share * 1_000_000,
    pick: <Item>(list: readonly Item[]): Item => {
      if (list.length === 0) throw new Error("nothing to pick from");
      return list[below(list.length)] as Item;
    },
  };
}
