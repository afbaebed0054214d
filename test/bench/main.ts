import { parseArgs } from "node:util";
import type { Benchmark } from "./benchmark.ts";
import { creates } from "./creates.ts";
import { cycles } from "./cycles.ts";
import { history } from "./history.ts";
import { imageTransfer } from "./image-transfer.ts";
import { noticed } from "./noticed.ts";
import { reads } from "./reads.ts";
import { reconcile } from "./reconcile.ts";
import { start } from "./start.ts";
import { warmStart } from "./warm-start.ts";

/** `npm run bench`: every benchmark, or those that are named. */
const BENCHMARKS: readonly Benchmark[] = [
  creates,
  start,
  cycles,
  reads,
  reconcile,
  history,
  noticed,
  warmStart,
  imageTransfer,
];

const print = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

function chosen(names: readonly string[]): readonly Benchmark[] {
  const unknown = names.filter((name) => !BENCHMARKS.some((benchmark) => benchmark.name === name));
  if (unknown.length > 0) {
    const known = BENCHMARKS.map(({ name }) => name).join(", ");
    throw new Error(`there is no benchmark ${unknown.join(", ")}; there are: ${known}`);
  }
  return BENCHMARKS.filter(({ name }) => names.length === 0 || names.includes(name));
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { statements: { type: "boolean", default: false } },
});
for (const benchmark of chosen(positionals)) {
  print(`\n== ${benchmark.name}: ${benchmark.title}`);
  await benchmark.run(print, values);
}
