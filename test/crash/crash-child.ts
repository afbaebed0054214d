// A whole service, as `drover serve` starts it, that holds operations at named points until it is killed. Takes its
// configuration from the environment and its orders from its parent over IPC; ends when the parent does.
import { pino } from "pino";
import { readConfig } from "../../src/config.ts";
import { startService } from "../../src/service.ts";
import { makeFakeBuildTools } from "../fixtures/build-tools.ts";
import type { FromChild, ToChild } from "./crash-service.ts";
import { Gate } from "./gate.ts";

const config = readConfig(process.env);

function tell(message: FromChild): void {
  process.send?.(message);
}

const gate = new Gate({
  onHeld(id, operationId) {
    tell({ kind: "held", id, operationId });
  },
  async cancel(operationId) {
    const answer = await fetch(`${url}/v1/operations/${operationId}/cancel`, {
      method: "POST",
      headers: { authorization: `Bearer ${config.adminToken ?? ""}` },
    });
    if (!answer.ok) throw new Error(`the cancel was refused: ${await answer.text()}`);
  },
});

process.on("message", (message: ToChild) => {
  gate.arm(message.holds);
  tell({ kind: "armed" });
});
process.once("disconnect", () => process.exit());

const service = await startService({
  config,
  logger: pino({ level: config.logLevel }, process.stderr),
  probe: gate.probe,
  buildTools: await makeFakeBuildTools(config.dataDir),
});
const url = service.url ?? "";
tell({ kind: "ready", url });
