/** A list of listeners. One that throws is a mistake in its code: it surfaces as an uncaught exception. */
export class Listeners<Args extends readonly unknown[]> {
  readonly #listeners = new Set<(...args: Args) => void>();

  /** Returns the way to remove it again. */
  add(listener: (...args: Args) => void): () => void {
    // A wrapper of its own, so that a function added twice is called twice and removed once.
    const own = (...args: Args): void => {
      listener(...args);
    };
    this.#listeners.add(own);
    return () => {
      this.#listeners.delete(own);
    };
  }

  emit(...args: Args): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener(...args);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  clear(): void {
    this.#listeners.clear();
  }
}
