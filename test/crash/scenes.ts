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

/** The network that the VMs of the scenes are in, where the rig's hosts make networks. */
export const CAMPAIGN_NETWORK = { name: "campaign", kind: "isolated", ipv4: { cidr: "10.64.0.0/16" } };
export const NIC_SPEC = { nics: [{ name: "eth0", network: CAMPAIGN_NETWORK.name }] };
/** The pool of every rig's hosts. */
export const POOL = "default";

const nothing = (): Promise<void> => Promise.resolve();

/** A create that does not start has a step that others leave out. */
const STOPPED_CREATE = "vm.create stopped";
/** What is saved comes back, and goes back, by other calls than what is off. */
const SAVED_START = "vm.start saved";
/** What is off is defined anew. */
const STOPPED_ATTACH = "vm.attachDisk stopped";
const STOPPED_DETACH = "vm.detachDisk stopped";
/** NICs of a VM that is off are in its definition only. */
const OFF_ATTACH = "vm.attachNic off";
const OFF_DETACH = "vm.detachNic off";
/** Scenes of a kind beside the one of its own name. */
const FURTHER: Readonly<Record<string, readonly string[]>> = {
  "vm.create": [STOPPED_CREATE],
  "vm.start": [SAVED_START],
  "vm.attachDisk": [STOPPED_ATTACH],
  "vm.detachDisk": [STOPPED_DETACH],
  "vm.attachNic": [OFF_ATTACH],
  "vm.detachNic": [OFF_DETACH],
};

/** Bodies of actions whose defaults leave a step without work. */
const BODIES: Readonly<Partial<Record<ActionName, object>>> = { stop: { timeoutSeconds: 1 } };
/** From which VMs are acted on. */
const POWERS = ["off", "running", "paused", "saved"] as const;

/** Ids by the name of the place: of the image, and of its copy on the host. */
const brought = new Map<string, string>();
const evicted = new Map<string, string>();

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
  "network.delete": {
    input: {},
    prepare: (stage, { name }) => makeNetwork(stage, name),
    request: (_stage, { name }) => ({ method: "DELETE", path: `/v1/networks/${name}` }),
  },
  "network.withdraw": {
    input: {},
    async prepare(stage, place) {
      await makeNetwork(stage, place.name);
      // A VM that was there leaves the network on its host.
      const nics = [{ name: "eth0", network: place.name }];
      const vm = createRequest({ ...stage, guestSpec: { ...stage.guestSpec, nics } }, place, "stopped");
      await stage.call.done(vm);
      await stage.call.done({ method: "DELETE", path: `/v1/vms/${place.name}` });
    },
    request: (_stage, { name, host }) => ({ method: "DELETE", path: `/v1/networks/${name}/hosts/${host}` }),
  },
  "vm.attachNic": attachNicScene("running"),
  [OFF_ATTACH]: attachNicScene("off"),
  "vm.detachNic": detachNicScene("running"),
  [OFF_DETACH]: detachNicScene("off"),
  "hostImage.bring": {
    input: {},
    prepare: async (stage, place) => {
      brought.set(place.name, await importImage(stage, place));
    },
    request: (_stage, place) => bringRequest(place),
  },
  "hostImage.evict": {
    input: {},
    prepare: async (stage, place) => {
      brought.set(place.name, await importImage(stage, place));
      await stage.call.done(bringRequest(place));
      evicted.set(place.name, await copyOf(stage, place));
    },
    request: (_stage, { name, host }) => ({
      method: "DELETE",
      path: `/v1/hosts/${host}/images/${evicted.get(name) ?? ""}`,
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
  "vm.attachDisk": attachDiskScene("running"),
  [STOPPED_ATTACH]: attachDiskScene("stopped"),
  "vm.detachDisk": detachDiskScene("running"),
  [STOPPED_DETACH]: detachDiskScene("stopped"),
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

let subnets = 0;

/** Networks of one installation have subnets apart. */
async function makeNetwork({ call }: Stage, name: string): Promise<void> {
  const cidr = `10.${65 + (subnets >> 8)}.${subnets++ & 255}.0/24`;
  await call.make("/v1/networks", { name, kind: "isolated", ipv4: { cidr } });
}

const MORE = { name: "more", network: CAMPAIGN_NETWORK.name };

function attachNicScene(power: "running" | "off"): Scene {
  return {
    input: { managed: true },
    prepare: (stage, place) => makeVm(stage, place, power),
    request: (_stage, { name }) => ({ method: "POST", path: `/v1/vms/${name}/nics`, body: MORE }),
  };
}

function detachNicScene(power: "running" | "off"): Scene {
  return {
    input: { managed: true },
    async prepare(stage, place) {
      await makeVm(stage, place, power);
      await stage.call.done({ method: "POST", path: `/v1/vms/${place.name}/nics`, body: MORE });
    },
    request: (_stage, { name }) => ({ method: "DELETE", path: `/v1/vms/${name}/nics/${MORE.name}` }),
  };
}

/** An image with a content of its own. */
async function importImage({ call, imageUrl }: Stage, { name }: Place): Promise<string> {
  const source = { kind: "url", url: `${imageUrl}/${name}` };
  await call.done({ method: "POST", path: "/v1/images", body: { name, kind: "kernel", source } });
  return ((await call.read(`/v1/images/${name}`)) as { readonly id: string }).id;
}

function bringRequest({ name, host }: Place): Change {
  const body = { image: brought.get(name) ?? "", pool: POOL };
  return { method: "POST", path: `/v1/hosts/${host}/images`, body };
}

async function copyOf({ call }: Stage, { name, host }: Place): Promise<string> {
  const image = (await call.read(`/v1/images/${name}`)) as { readonly sha256: string };
  const { items } = (await call.read(`/v1/hosts/${host}/images`)) as {
    readonly items: readonly { readonly id: string; readonly sha256: string }[];
  };
  const copy = items.find(({ sha256 }) => sha256 === image.sha256);
  if (copy === undefined) throw new Error(`${host} has no copy of image ${name}`);
  return copy.id;
}

function createScene(runPolicy: "running" | "stopped"): Scene {
  return {
    input: { start: runPolicy === "running", bootFiles: true, disks: true, networks: true },
    prepare: nothing,
    request: (stage, place) => createRequest(stage, place, runPolicy),
  };
}

function attachDiskScene(runPolicy: "running" | "stopped"): Scene {
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

function detachDiskScene(runPolicy: "running" | "stopped"): Scene {
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
