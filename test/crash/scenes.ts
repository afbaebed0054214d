import { asId, type VmId } from "../../src/lib/ids.ts";
import { vmActions } from "../../src/vms/actions/index.ts";
import { type ActionName, allowedActions } from "../../src/vms/vm-state.ts";
import type { Caller, Change } from "./caller.ts";

/** Where one operation of the matrix plays: on a VM, host or image of its own. */
export interface Place {
  /** Of the VM, host or image that the operation is about; nobody else has it. */
  readonly name: string;
  /** The name of a registered host; the places that act at once have different ones where the rig has enough. */
  readonly host: string;
}

/** What the rig lends to the scenes. */
export interface Stage {
  readonly call: Caller;
  /** The URI of a host that is not registered yet. */
  readonly newHostUri: (name: string) => string;
  /** Where an image can be imported from. */
  readonly imageUrl: string;
  /** Called for a VM that is to be stopped: its guest shall take no notice, so that every step of a stop has work to do. */
  readonly deafen: (vmId: string, host: string) => Promise<void>;
  /** What the spec of a guest on this rig says besides. */
  readonly guestSpec: object;
  /** Whether a guest on this rig takes disks while it runs, and lets go of them; else it is off for that. */
  readonly takesDisks: boolean;
}

/** How one kind of operation is brought about through the API. */
export interface Scene {
  /** As far as the kind's `skip` and `forwardOnly` look at it. */
  readonly input: unknown;
  /** Makes what the operation needs, before anything is killed. */
  prepare(stage: Stage, place: Place): Promise<void>;
  request(stage: Stage, place: Place): Change;
}

/** Images that the VMs of the scenes are made from; each rig uploads them. */
export const DISK_IMAGE = "disk-image";
export const KERNEL_IMAGE = "kernel-image";

const nothing = (): Promise<void> => Promise.resolve();

/** A create that does not start has a step that others leave out. */
const STOPPED_CREATE = "vm.create stopped";
/** What is saved comes back, and goes back, by other calls than what is off. */
const SAVED_START = "vm.start saved";
/** What is off is defined anew. */
const STOPPED_ATTACH = "vm.attachDisk stopped";
const STOPPED_DETACH = "vm.detachDisk stopped";
/** Scenes of a kind beside the one of its own name. */
const FURTHER: Readonly<Record<string, readonly string[]>> = {
  "vm.create": [STOPPED_CREATE],
  "vm.start": [SAVED_START],
  "vm.attachDisk": [STOPPED_ATTACH],
  "vm.detachDisk": [STOPPED_DETACH],
};

/** Bodies of actions whose defaults leave a step without work. */
const BODIES: Readonly<Partial<Record<ActionName, object>>> = { stop: { timeoutSeconds: 1 } };
/** From which VMs are acted on. */
const POWERS = ["off", "running", "paused", "saved"] as const;

const OTHER_SCENES: Readonly<Record<string, Scene>> = {
  "host.register": {
    input: {},
    prepare: nothing,
    request: (stage, { name }) => ({
      method: "POST",
      path: "/v1/hosts",
      body: { name, uri: stage.newHostUri(name) },
    }),
  },
  "host.refresh": {
    input: {},
    prepare: nothing,
    request: (_stage, { host }) => ({ method: "POST", path: `/v1/hosts/${host}/refresh` }),
  },
  "image.import": {
    input: {},
    prepare: nothing,
    request: ({ imageUrl }, { name }) => ({
      method: "POST",
      path: "/v1/images",
      // A content of its own, so that what is left of it can be told from the others'.
      body: { name, kind: "kernel", source: { kind: "url", url: `${imageUrl}/${name}` } },
    }),
  },
  "image.build": {
    input: {},
    prepare: nothing,
    request: (_stage, { name }) => ({
      method: "POST",
      path: "/v1/images",
      body: { name, kind: "disk", source: { kind: "debootstrap", suite: "bookworm" } },
    }),
  },
  "vm.create": createScene("running"),
  [STOPPED_CREATE]: createScene("stopped"),
  [SAVED_START]: actionScene("start", "saved"),
  "volume.create": {
    input: {},
    prepare: nothing,
    request: (_stage, place) => volumeRequest(place),
  },
  "volume.delete": {
    input: {},
    prepare: (stage, place) => stage.call.done(volumeRequest(place)),
    request: (_stage, { name }) => ({ method: "DELETE", path: `/v1/volumes/${name}` }),
  },
  "volume.resize": {
    input: {},
    prepare: (stage, place) => stage.call.done(volumeRequest(place)),
    request: (_stage, { name }) => ({
      method: "POST",
      path: `/v1/volumes/${name}/resize`,
      body: { sizeGib: 2 },
    }),
  },
  "vm.attachDisk": attachScene("running"),
  [STOPPED_ATTACH]: attachScene("stopped"),
  "vm.detachDisk": detachScene("running"),
  [STOPPED_DETACH]: detachScene("stopped"),
  "vm.delete": {
    input: {},
    prepare: (stage, place) => makeVm(stage, place, "running"),
    request: (_stage, { name }) => ({ method: "DELETE", path: `/v1/vms/${name}` }),
  },
};

/** The names of a kind's scenes: more than one where no input or state of a VM has all of its steps' work. */
export function scenesOf(kind: string): readonly string[] {
  return [kind, ...(FURTHER[kind] ?? [])];
}

/** The inputs of a kind's scenes. */
export function inputsOf(kind: string): readonly { readonly scene: string; readonly input: unknown }[] {
  return scenesOf(kind).map((scene) => ({ scene, input: sceneOf(scene).input }));
}

/** A scene by its name; those of VM actions follow from the list of actions. Throws for a kind that has none. */
export function sceneOf(name: string): Scene {
  const action = vmActions.find((candidate) => candidate.kind.name === name);
  if (action !== undefined) return actionScene(action.name);
  const scene = OTHER_SCENES[name];
  if (scene === undefined) throw new Error(`the operation kind ${name} needs a scene in ${import.meta.url}`);
  return scene;
}

function createScene(runPolicy: "running" | "stopped"): Scene {
  return {
    input: { start: runPolicy === "running", bootFiles: true, disks: true },
    prepare: nothing,
    request: (stage, place) => createRequest(stage, place, runPolicy),
  };
}

function attachScene(runPolicy: "running" | "stopped"): Scene {
  return {
    input: { isNew: true },
    prepare: (stage, place) => stage.call.done(vmOfDisks(stage, place, runPolicy)),
    request: (_stage, { name }) => attachRequest(name),
  };
}

/** Asks for the VM whose disks are to change. */
function vmOfDisks(stage: Stage, place: Place, runPolicy: "running" | "stopped"): Change {
  return createRequest(stage, place, stage.takesDisks ? runPolicy : "stopped");
}

function attachRequest(vm: string): Change {
  return {
    method: "POST",
    path: `/v1/vms/${vm}/disks`,
    body: { name: "data", image: DISK_IMAGE, sizeGib: 1 },
  };
}

function detachScene(runPolicy: "running" | "stopped"): Scene {
  return {
    input: { timeoutSeconds: 60, deleteVolume: true },
    async prepare(stage, place) {
      await stage.call.done(vmOfDisks(stage, place, runPolicy));
      await stage.call.done(attachRequest(place.name));
    },
    request: (_stage, { name }) => ({ method: "DELETE", path: `/v1/vms/${name}/disks/data` }),
  };
}

/** An action on a VM of this power; without: the first from which it does anything. */
function actionScene(name: ActionName, from?: (typeof POWERS)[number]): Scene {
  const power =
    from ?? POWERS.find((candidate) => allowedActions({ phase: "ready", power: candidate }).includes(name));
  const action = vmActions.find((candidate) => candidate.name === name);
  if (power === undefined || action === undefined)
    throw new Error(`no power from which the action ${name} does anything`);
  const body = BODIES[name] ?? {};
  return {
    input: action.inputFor(asId<VmId>("00000000-0000-4000-8000-000000000000"), body),
    prepare: (stage, place) => makeVm(stage, place, power),
    request: (_stage, place) => ({ method: "POST", path: `/v1/vms/${place.name}/${name}`, body }),
  };
}

function createRequest(
  { guestSpec }: Stage,
  { name, host }: Place,
  runPolicy: "running" | "stopped",
): Change {
  const spec = {
    cpu: { count: 1 },
    memoryMib: 64,
    runPolicy,
    boot: { kernel: KERNEL_IMAGE },
    disks: [{ name: "root", image: DISK_IMAGE }],
    placement: { host },
    ...guestSpec,
    // One more volume, whose content is neither an image's nor empty.
    cloudInit: { userData: "#!/bin/sh\necho seeded\n" },
  };
  return { method: "POST", path: "/v1/vms", body: { name, spec } };
}

/** A volume of its own, filled from an image. */
function volumeRequest({ name, host }: Place): Change {
  return {
    method: "POST",
    path: "/v1/volumes",
    body: { name, host, sizeGib: 1, source: { kind: "image", image: DISK_IMAGE } },
  };
}

async function makeVm(stage: Stage, place: Place, power: (typeof POWERS)[number]): Promise<void> {
  await stage.call.done(createRequest(stage, place, power === "off" ? "stopped" : "running"));
  const { id } = (await stage.call.read(`/v1/vms/${place.name}`)) as { readonly id: string };
  await stage.deafen(id, place.host);
  const verb = { off: null, running: null, paused: "pause", saved: "save" }[power];
  if (verb !== null)
    await stage.call.done({ method: "POST", path: `/v1/vms/${place.name}/${verb}`, body: {} });
}
