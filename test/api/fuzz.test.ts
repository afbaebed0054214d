import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestService, type TestService } from "../fixtures/service.ts";
import { type Report, runCampaign } from "../fuzz/campaign.ts";
import { readDocument, routesOf } from "../fuzz/document.ts";

// A bounded run, the same each time. `npm run fuzz -- --seconds 600 --seed 7` runs longer, and from another seed;
// DROVER_FUZZ_SEED repeats a run.
const USUAL_SEED = 7420;
const SEED = Number(process.env["DROVER_FUZZ_SEED"] ?? USUAL_SEED);
const SECONDS = Number(process.env["DROVER_FUZZ_SECONDS"] ?? 0);
const BOUNDED_REQUESTS = 350;
// No multiple of it is the number of wrong values, so each member of a body meets others of them.
const BOUNDED_STRIDE = 3;
const BOUNDED_SECONDS = 240;
const MINUTE_MS = 60_000;

let service: TestService;
beforeAll(async () => {
  // Else every import is refused at the door.
  service = await startTestService({ DROVER_IMAGE_IMPORT_ALLOW: "127.0.0.1" });
});
afterAll(async () => {
  await service.stop();
});

test(
  `nonsense from seed ${SEED} is refused with a problem and changes nothing; what is answered is as documented`,
  async () => {
    const wanted = routesOf(await readDocument())
      .map(({ operationId }) => operationId)
      .filter((operationId) => !OUT_OF_REACH.includes(operationId));
    const bounds =
      SECONDS > 0
        ? { sweepStride: 1, requests: Number.POSITIVE_INFINITY, seconds: SECONDS }
        : { sweepStride: BOUNDED_STRIDE, requests: BOUNDED_REQUESTS, seconds: BOUNDED_SECONDS };
    const report = await runCampaign(service, { seed: SEED, wanted, ...bounds });
    process.stdout.write(`${describeReport(report)}\n`);
    expect(report.violations.map(({ index, what, request }) => `${index}: ${what}\n  ${request}`)).toEqual(
      [],
    );
    expect(await brokenOperations()).toEqual([]);
    expect(service.logged.filter(({ level }) => Number(level) >= ERROR_LEVEL)).toEqual([]);
    expect((await fetch(`${service.url}/readyz`)).status).toBe(200);
    // What was never reached was never tested.
    expect(wanted.filter((operationId) => !report.succeeded.has(operationId))).toEqual([]);
  },
  (SECONDS > 0 ? SECONDS * 1000 : BOUNDED_SECONDS * 1000) + 2 * MINUTE_MS,
);

const ERROR_LEVEL = 50;
/**
 * Retrying takes an operation that needs `attention`, which no request may bring about: see brokenOperations. A console
 * is a WebSocket, which these requests do not become, and simulated guests have no screen to take a picture of, and
 * their hosts keep no content of volumes. A network can be taken off a host only between the delete of its last VM there
 * and the next create, and a copy of an image only by its own id, while nothing is read from it.
 */
const OUT_OF_REACH: readonly string[] = [
  ...["retryOperation", "connectConsole", "getVmScreenshot", "downloadVolume"],
  ...["removeNetworkFromHost", "evictImageFromHost"],
];

/** Operations that ended in a way that no request may cause. */
async function brokenOperations() {
  const rows = await service.database.db.operation.findMany({
    where: { OR: [{ state: "attention" }, { error: { path: ["code"], equals: "internal" } }] },
    select: { kind: true, state: true, error: true, input: true },
  });
  return rows.slice(0, 5);
}

function describeReport({
  requests,
  byStatus,
  succeeded,
  compared,
  comparedLoosely,
  violations,
}: Report): string {
  const statuses = Object.entries(byStatus).map(([status, count]) => `${status}: ${count}`);
  return (
    `fuzz: seed ${SEED}, ${requests} requests (${statuses.join(", ")}), ${succeeded.size} routes succeeded, ` +
    `${compared} refusals compared, ${comparedLoosely} loosely, ${violations.length} violations`
  );
}
