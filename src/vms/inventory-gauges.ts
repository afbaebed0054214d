import type { Db } from "../db/transaction.ts";
import type { Metrics } from "../http/metrics.ts";
import { countHosts, countOperations, countVms } from "./inventory-store.ts";

/** What the inventory holds, counted when somebody asks for the metrics. */
export function registerInventoryGauges(metrics: Metrics, db: Db): void {
  metrics.gauge("drover_vms", "VMs by phase and power.", ["phase", "power"], () => countVms(db));
  metrics.gauge("drover_hosts", "Hosts by state.", ["state"], () => countHosts(db));
  metrics.gauge("drover_operations_unfinished", "Unfinished operations by state.", ["state"], () =>
    countOperations(db),
  );
}
