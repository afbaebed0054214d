/** One benchmark: what it is called, what it measures, and its run. */
export interface Benchmark {
  readonly name: string;
  readonly title: string;
  /** Prints its figures; throws where something went wrong, never because something was slow. */
  run(print: Print, options: BenchOptions): Promise<void>;
}

export type Print = (line: string) => void;

export interface BenchOptions {
  /** Prints the statements too, by how often they are sent. */
  readonly statements: boolean;
}
