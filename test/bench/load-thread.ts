import { Agent, request } from "node:http";
import { parentPort, workerData } from "node:worker_threads";
import type { LoadPlan, LoadRequest, LoadResult } from "./load.ts";

// The other end of sendLoad: node:http with kept connections, the cheapest client at hand.
const plan = workerData as LoadPlan;
const agent = new Agent({ keepAlive: true, maxSockets: plan.atOnce });

interface Answered {
  readonly status: number;
  readonly text: string;
}

function send({ method, path, body }: LoadRequest): Promise<Answered> {
  return new Promise((resolve, reject) => {
    const payload = body === undefined ? null : JSON.stringify(body);
    const headers = {
      authorization: `Bearer ${plan.token}`,
      ...(payload === null
        ? {}
        : { "content-type": "application/json", "content-length": Buffer.byteLength(payload) }),
    };
    const sent = request(`${plan.url}${path}`, { method, agent, headers }, (answer) => {
      let text = "";
      answer.setEncoding("utf8");
      answer.on("data", (part: string) => {
        text += part;
      });
      answer.on("end", () => {
        resolve({ status: answer.statusCode ?? 0, text });
      });
      answer.on("error", reject);
    });
    sent.on("error", reject);
    sent.end(payload ?? undefined);
  });
}

async function run(): Promise<LoadResult> {
  const latenciesMs: number[] = [];
  const statuses: Record<number, number> = {};
  let refused: string | null = null;
  let next = 0;
  const started = performance.now();
  const sendOneByOne = async (): Promise<void> => {
    for (;;) {
      const index = next++;
      const wanted = plan.requests[index];
      if (wanted === undefined) return;
      const sentAt = performance.now();
      const { status, text } = await send(wanted);
      latenciesMs[index] = performance.now() - sentAt;
      statuses[status] = (statuses[status] ?? 0) + 1;
      if (status >= 300) refused ??= `${wanted.method} ${wanted.path}: ${status} ${text.slice(0, 500)}`;
    }
  };
  await Promise.all(Array.from({ length: plan.atOnce }, sendOneByOne));
  agent.destroy();
  return { seconds: (performance.now() - started) / 1000, latenciesMs, statuses, refused };
}

parentPort?.postMessage(await run());
