import type { Db } from "../db/transaction.ts";

interface Count {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** How many VMs there are by phase and power. */
export async function countVms(db: Db): Promise<Count[]> {
  const rows = await db.vm.groupBy({ by: ["phase", "power"], _count: true });
  return rows.map(({ phase, power, _count: value }) => ({ labels: { phase, power }, value }));
}

/** How many hosts there are by state. */
export async function countHosts(db: Db): Promise<Count[]> {
  const rows = await db.host.groupBy({ by: ["state"], _count: true });
  return rows.map(({ state, _count: value }) => ({ labels: { state }, value }));
}

/** How many operations are unfinished, by state. */
export async function countOperations(db: Db): Promise<Count[]> {
  const rows = await db.operation.groupBy({ by: ["state"], where: { endedAt: null }, _count: true });
  return rows.map(({ state, _count: value }) => ({ labels: { state }, value }));
}
