import pg from "pg";

/** Counts of statements by their text, and the milliseconds from sending to the answer. */
export interface StatementCounts {
  /** Forgets what was counted so far. */
  reset(): void;
  /** The statements by how often they were sent, for so many operations. */
  report(operations: number, most: number): string[];
  total(): number;
}

interface Count {
  sent: number;
  ms: number;
}

/** Counts every statement that this process sends from now on: one is one round trip to the database. */
export function countStatements(): StatementCounts {
  const counts = new Map<string, Count>();
  const original = Reflect.get(pg.Client.prototype, "query") as (...args: unknown[]) => unknown;
  const note = (text: string, ms: number): void => {
    const count = counts.get(text) ?? { sent: 0, ms: 0 };
    count.sent++;
    count.ms += ms;
    counts.set(text, count);
  };
  const counted = function (this: pg.Client, ...args: unknown[]): unknown {
    const started = performance.now();
    const answer = Reflect.apply(original, this, args);
    const text = shortened(textOf(args[0]));
    if (answer instanceof Promise) {
      const done = (): void => {
        note(text, performance.now() - started);
      };
      answer.then(done, done);
    } else note(text, 0);
    return answer;
  };
  Reflect.set(pg.Client.prototype, "query", counted);
  return {
    reset: () => {
      counts.clear();
    },
    total: () => [...counts.values()].reduce((sum, { sent }) => sum + sent, 0),
    report: (operations, most) =>
      [...counts]
        .toSorted(([, a], [, b]) => b.sent - a.sent)
        .slice(0, most)
        .map(
          ([text, { sent, ms }]) =>
            `${(sent / operations).toFixed(2).padStart(7)} ${(ms / sent).toFixed(1).padStart(7)} ms  ${text}`,
        ),
  };
}

export interface StatementRecorder {
  /** The statements that this process sends while the work is done. */
  during(work: () => Promise<void>): Promise<readonly pg.QueryConfig[]>;
}

/** To be called before the first connection is made. */
export function recordStatements(): StatementRecorder {
  const original = Reflect.get(pg.Client.prototype, "query") as (...args: unknown[]) => unknown;
  let kept: pg.QueryConfig[] | null = null;
  const recorded = function (this: pg.Client, ...args: unknown[]): unknown {
    const [query] = args;
    if (typeof query === "object" && query !== null && textOf(query) !== "?")
      kept?.push(query as pg.QueryConfig);
    return Reflect.apply(original, this, args);
  };
  Reflect.set(pg.Client.prototype, "query", recorded);
  return {
    async during(work) {
      const mine: pg.QueryConfig[] = [];
      kept = mine;
      try {
        await work();
      } finally {
        kept = null;
      }
      return mine;
    },
  };
}

function textOf(query: unknown): string {
  if (typeof query === "string") return query;
  if (typeof query !== "object" || query === null) return "?";
  const text: unknown = Reflect.get(query, "text");
  return typeof text === "string" ? text : "?";
}

const LENGTH = 150;

function shortened(text: string): string {
  return text.replaceAll(/\s+/g, " ").replaceAll('"public".', "").trim().slice(0, LENGTH);
}
