import { setTimeout as sleep } from "node:timers/promises";
import type { TestService } from "../fixtures/service.ts";
import { type Check, createCheck } from "./checks.ts";
import { type ApiDocument, type Route, readDocument, routesOf } from "./document.ts";
import { createRandom, type Random } from "./random.ts";
import { type FuzzRequest, makeRequest, makeSweepRequest } from "./request.ts";
import { changedTables, countUnfinished, leftOperation, type Snapshot, takeSnapshot } from "./snapshot.ts";
import { type SweepCase, sweepCases } from "./sweep.ts";
import { exchange, type Outcome, type WireAnswer } from "./wire.ts";
import { createWorld, type World } from "./world.ts";

export interface CampaignOptions {
  readonly seed: number;
  /** Of the sweep's cases one in so many is sent; which ones follows from the seed. */
  readonly sweepStride: number;
  /** How many requests are drawn at random after the sweep; it ends earlier when the time is up. */
  readonly requests: number;
  readonly seconds: number;
  /** Routes that a success is wanted of. */
  readonly wanted: readonly string[];
}

export interface Violation {
  readonly index: number;
  readonly what: string;
  /** The request as it was sent, to be read and repeated. */
  readonly request: string;
}

export interface Report {
  readonly requests: number;
  readonly byStatus: Readonly<Record<string, number>>;
  /** Routes that answered a request with a success at least once. */
  readonly succeeded: ReadonlySet<string>;
  /** Refused requests after which every table was compared, and those where only operations could be looked at. */
  readonly compared: number;
  readonly comparedLoosely: number;
  readonly violations: readonly Violation[];
}

const MOST_VIOLATIONS = 12;
const TEND_EVERY = 60;
/** Rounds over all routes with nothing wrong, so that each is reached. */
const FITTING_ROUNDS = 8;
/** How often a route that nothing has reached yet is asked for once more at the end. */
const REACHING_TRIES = 40;
const SPOILED_SHARE = 0.65;
const CUT_OFF_MS = 40;
const SETTLE_MS = 300;
const SETTLE_POLL_MS = 10;

/** Sends requests one after the other, in the order and with the content that the seed gives. */
export async function runCampaign(service: TestService, options: CampaignOptions): Promise<Report> {
  const document = await readDocument();
  const run = new Run(service, await createWorld(service), document, options);
  const end = performance.now() + options.seconds * 1000;
  let index = 0;
  const most = run.plannedCount() + options.requests;
  while (index < most && performance.now() < end && run.violations.length < MOST_VIOLATIONS) {
    if (index % TEND_EVERY === 0) await run.tend();
    await run.step(options.seed, index);
    index++;
  }
  for (const operationId of options.wanted)
    for (let tries = 0; tries < REACHING_TRIES && !run.hasReached(operationId); tries++) {
      await run.tend();
      await run.step(options.seed, index++, operationId);
    }
  return { ...run.report(), requests: index };
}

class Run {
  readonly violations: Violation[] = [];
  readonly #service: TestService;
  readonly #world: World;
  readonly #document: ApiDocument;
  readonly #routes: readonly Route[];
  readonly #sweep: readonly SweepCase[];
  readonly #check: Check;
  readonly #port: number;
  readonly #byStatus: Record<string, number> = {};
  readonly #succeeded = new Set<string>();
  #compared = 0;
  #comparedLoosely = 0;
  #before: Snapshot = {};
  /** Operations that did not end in time, and may still change what is compared. */
  #isUnsettled = false;
  /** The request before: what it did late is found after the next one. */
  #last = "none";

  constructor(service: TestService, world: World, document: ApiDocument, options: CampaignOptions) {
    this.#service = service;
    this.#world = world;
    this.#document = document;
    this.#routes = routesOf(document);
    const { seed, sweepStride } = options;
    const cases = sweepCases({ document, known: world.known() }, this.#routes);
    this.#sweep = cases.filter((_case, at) => (at + seed) % sweepStride === 0);
    this.#check = createCheck(document);
    this.#port = Number(new URL(service.url).port);
  }

  report(): Omit<Report, "requests"> {
    return {
      byStatus: this.#byStatus,
      succeeded: this.#succeeded,
      compared: this.#compared,
      comparedLoosely: this.#comparedLoosely,
      violations: this.violations,
    };
  }

  /** The requests that come before those drawn at random. */
  plannedCount(): number {
    return FITTING_ROUNDS * this.#routes.length + this.#sweep.length;
  }

  async tend(): Promise<void> {
    await this.#world.tend();
    await this.#settle();
  }

  hasReached(operationId: string): boolean {
    return this.#succeeded.has(operationId);
  }

  /** Sends one request: to the named route, as it should be; without, whatever its turn brings. */
  async step(seed: number, index: number, operationId?: string): Promise<void> {
    const random = createRandom(seed, index);
    const request = await this.#request(random, index, operationId);
    const outcome = await exchange({ port: this.#port, token: this.#world.token }, request);
    for (const what of this.#check(request, outcome)) this.#blame(index, request, what);
    await this.#look(index, request, outcome);
    this.#last = show(request);
  }

  /** First nothing wrong, then one thing at a time in its turn, then whatever comes. */
  async #request(random: Random, index: number, wanted: string | undefined): Promise<FuzzRequest> {
    const fittingCount = FITTING_ROUNDS * this.#routes.length;
    const swept = this.#sweep[index - fittingCount];
    const fits = index < fittingCount || wanted !== undefined;
    const drawn =
      wanted !== undefined
        ? this.#routes.find(({ operationId }) => operationId === wanted)
        : index < fittingCount
          ? this.#routes[index % this.#routes.length]
          : random.pick(this.#routes);
    const route = swept?.route ?? drawn;
    if (route === undefined) throw new Error("the document has no routes");
    if (route.operationId === "cancelOperation" && swept === undefined) await this.#beginOperation();
    const fitting = { document: this.#document, known: this.#world.known(), random };
    if (swept !== undefined) return makeSweepRequest(fitting, swept, index);
    return makeRequest(fitting, route, fits ? 0 : SPOILED_SHARE);
  }

  async #beginOperation(): Promise<void> {
    await this.#world.beginOperation();
    this.#before = await takeSnapshot(this.#service.database.db);
    // It may end by itself before the answer to the cancel is looked at.
    this.#isUnsettled = true;
  }

  /** Counts the answer; after a refusal nothing may have changed, after a success all must come to rest first. */
  async #look(index: number, request: FuzzRequest, outcome: Outcome): Promise<void> {
    const answers = outcome.kind === "answered" ? outcome.answers : [];
    const [first] = answers;
    const status = first === undefined ? outcome.kind : String(first.status);
    this.#byStatus[status] = (this.#byStatus[status] ?? 0) + 1;
    if (first !== undefined && first.status < 300) this.#learn(request, first);
    if (answers.some((answer) => answer.status < 300)) {
      if (request.method !== "GET" && request.method !== "HEAD") await this.#settle();
      return;
    }
    // What was cut off has nobody to answer to: give it time to do what it must not.
    if (first === undefined) await sleep(CUT_OFF_MS);
    const after = await takeSnapshot(this.#service.database.db);
    const changed = changedTables(this.#before, after);
    this.#before = after;
    if (!this.#isUnsettled) {
      this.#compared++;
      if (changed.length > 0)
        this.#blame(
          index,
          request,
          `refused with ${status}, and changed ${changed.join(", ")}; before it ${this.#last}`,
        );
      return;
    }
    this.#comparedLoosely++;
    const requestId = first?.headers.get("x-request-id");
    if (requestId !== undefined && (await leftOperation(this.#service.database.db, requestId))) {
      this.#blame(index, request, `refused with ${status}, and left an operation`);
    }
    await this.#settle();
  }

  #learn({ route }: FuzzRequest, { body }: WireAnswer): void {
    if (route !== null) this.#succeeded.add(route.operationId);
    const token = /"nextPageToken":"([^"]+)"/.exec(body.toString())?.[1];
    if (token !== undefined) this.#world.learnPageToken(token);
  }

  /**
   * Waits for the operations under way, so that what they do is not taken for the next request's doing. What takes
   * long is cancelled: a graceful stop waits a minute for a paused guest, and for ever on a host that is down.
   */
  async #settle(): Promise<void> {
    const { db } = this.#service.database;
    if (!(await this.#comesToRest())) await this.#world.cancelAll();
    this.#isUnsettled = !(await this.#comesToRest());
    this.#before = await takeSnapshot(db);
  }

  async #comesToRest(): Promise<boolean> {
    const end = performance.now() + SETTLE_MS;
    for (;;) {
      if ((await countUnfinished(this.#service.database.db)) === 0) return true;
      if (performance.now() > end) return false;
      await sleep(SETTLE_POLL_MS);
    }
  }

  #blame(index: number, request: FuzzRequest, what: string): void {
    this.violations.push({ index, what: what.slice(0, 1500), request: show(request) });
  }
}

const SHOWN_LENGTH = 1_500;

function show({ method, target, version, headers, body, delivery }: FuzzRequest): string {
  const lines = [`${method} ${target} ${version}`, ...headers.map(([name, value]) => `${name}: ${value}`)];
  const shown = body === null ? "no body" : JSON.stringify(body.toString("latin1"));
  return [...lines, `sent ${delivery}: ${shown}`].map((line) => line.slice(0, SHOWN_LENGTH)).join("\n  ");
}
