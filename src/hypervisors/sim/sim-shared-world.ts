import { openSimWorld, type SimWorld } from "./sim-world-store.ts";

interface Opened {
  readonly world: Promise<SimWorld>;
  users: number;
}

/** The world, opened once for all hosts of a process: with the first that needs it, until the last lets go. */
export class SharedWorld {
  readonly #databaseUrl: string;
  #current: Opened | null = null;

  constructor(databaseUrl: string) {
    this.#databaseUrl = databaseUrl;
  }

  /** The world, and how to let go of it. A world that was lost is replaced, though others may still hold it. */
  async acquire(): Promise<{ readonly world: SimWorld; readonly release: () => Promise<void> }> {
    const opened = (this.#current ??= { world: openSimWorld(this.#databaseUrl), users: 0 });
    opened.users += 1;
    let world: SimWorld;
    try {
      world = await opened.world;
    } catch (error) {
      this.#forget(opened);
      throw error;
    }
    if (world.isLost()) {
      await this.#release(opened, world);
      this.#forget(opened);
      return this.acquire();
    }
    let released: Promise<void> | null = null;
    return { world, release: () => (released ??= this.#release(opened, world)) };
  }

  async #release(opened: Opened, world: SimWorld): Promise<void> {
    opened.users -= 1;
    if (opened.users > 0) return;
    this.#forget(opened);
    await world.close();
  }

  #forget(opened: Opened): void {
    if (this.#current === opened) this.#current = null;
  }
}
