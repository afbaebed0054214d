import type { Field, Killed } from "./campaign.ts";
import type { Cell } from "./cells.ts";
import { type Place, sceneOf } from "./scenes.ts";

/** One operation of a strike. Which one of a kind comes to which cell's point turns out when it is there. */
export interface Act {
  readonly cell: Cell;
  readonly place: Place;
}

/** What an operation of a kind does to its VM when nothing disturbs it: power of the domain, or "absent". */
export interface Effect {
  readonly before: string;
  readonly after: string;
}

/** What is wrong with the operations of a strike after the restart; each has ended then. Empty: nothing. */
export async function verdictOn(
  field: Field,
  acts: readonly Act[],
  { held, answered }: Killed,
  effects: ReadonlyMap<string, Effect>,
): Promise<string[]> {
  const effectOf = effectsOfKinds(acts, effects);
  const cellOf = new Map<string, Cell>();
  for (const { cell } of acts) {
    const operationId = held.get(cell.id) ?? null;
    if (operationId !== null && cell.point !== "enqueue.written") cellOf.set(operationId, cell);
  }
  const wrong: string[] = [];
  for (const [index, act] of acts.entries()) {
    const answeredId = answered[index] ?? null;
    const id = await askAgain(field, act, answeredId);
    if (id === null) continue;
    if (answeredId !== null && id !== answeredId) wrong.push(`${id} and ${answeredId} under one key`);
    // One that was not held was lost before its commit, or was not taken yet: now it is like any other.
    const cell = cellOf.get(id);
    cellOf.delete(id);
    wrong.push(...(await verdictOnOne(field, id, cell, effectOf)));
  }
  // Deletes whose VM was gone when they were to be asked for again, and no others.
  for (const [id, cell] of cellOf) wrong.push(...(await verdictOnOne(field, id, cell, effectOf)));
  return wrong;
}

/** In a strike all operations of a kind are of one scene. */
function effectsOfKinds(
  acts: readonly Act[],
  effects: ReadonlyMap<string, Effect>,
): ReadonlyMap<string, Effect> {
  return new Map(
    acts.flatMap(({ cell: { kind, scene } }) => {
      const effect = effects.get(scene);
      return effect === undefined ? [] : [[kind, effect] as const];
    }),
  );
}

/** The same request under the same key leads to the same operation. A delete has no key: its VM may be gone. */
async function askAgain(
  field: Field,
  { cell, place }: Act,
  answeredId: string | null,
): Promise<string | null> {
  const request = sceneOf(cell.scene).request(field.stage, place);
  if (request.method === "DELETE") {
    if (answeredId !== null || (await vmIdOf(field, place.name)) === null) return answeredId;
    // The VM is there, and what was to be taken out of it may be gone.
    if (request.path !== `/v1/vms/${place.name}`)
      return await field.stage.call.ask(request, place.name).catch(() => null);
  }
  return await field.stage.call.ask(request, place.name);
}

async function verdictOnOne(
  field: Field,
  id: string,
  cell: Cell | undefined,
  effects: ReadonlyMap<string, Effect>,
): Promise<string[]> {
  const { call } = field.stage;
  const operation = await call.ended(id);
  const name = `${cell?.id ?? `${operation.kind} that was not held`} (${id})`;
  const expected = cell?.expected ?? "succeeded";
  const wrong =
    operation.state === expected
      ? []
      : [`${name} is ${operation.state}, not ${expected}: ${JSON.stringify(operation)}`];
  if (operation.state === "attention")
    await call.done({ method: "POST", path: `/v1/operations/${id}/retry` });
  const effect = effects.get(operation.kind);
  const target = operation.targets[0];
  if (target?.kind !== "vm" || effect === undefined) return wrong;
  const power = await powerOf(field, target.id);
  const isDone = operation.state === "succeeded" || operation.state === "attention";
  const undone = cell?.undoes === true ? [effect.before] : [effect.before, effect.after];
  const allowed = isDone ? [effect.after] : undone;
  return allowed.includes(power)
    ? wrong
    : [...wrong, `${name} left the domain ${power}, not ${allowed.join(" or ")}`];
}

export async function vmIdOf({ database: { db } }: Field, name: string): Promise<string | null> {
  return (await db.vm.findFirst({ where: { name }, select: { id: true } }))?.id ?? null;
}

export async function powerOf({ rig }: Field, vmId: string | null): Promise<string> {
  return vmId === null ? "absent" : ((await rig.world()).domains.get(vmId) ?? "absent");
}
