import { ENGINE_MUTANTS } from "./engine-mutants.ts";
import { FEATURE_MUTANTS } from "./feature-mutants.ts";
import type { Mutant } from "./mutant.ts";

/** Every mutant that `npm run test:mutants` tries. */
export const MUTANTS: readonly Mutant[] = [...ENGINE_MUTANTS, ...FEATURE_MUTANTS];
