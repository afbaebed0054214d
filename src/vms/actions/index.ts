import type { VmAction } from "../vm-action.ts";
import { pause, resume } from "./pause.ts";
import { reboot } from "./reboot.ts";
import { reset } from "./reset.ts";
import { restore } from "./restore.ts";
import { save } from "./save.ts";
import { start } from "./start.ts";
import { stop } from "./stop.ts";

/** Every action on a VM; routes, operation kinds, tests and docs follow from this list. */
export const vmActions: readonly VmAction[] = [start, stop, reboot, reset, pause, resume, save, restore];
