import * as rpc from "../../src/libvirt-rpc/index.ts";
import { connectLibvirt, type LibvirtConnection } from "../../src/libvirt-rpc/index.ts";
import { type KvmHost, startKvmHost } from "../rigs/kvm/kvm-host.ts";
import { type BenchService, startBenchService } from "./service.ts";

/** A service with one libvirt host, and a connection of our own to the same daemon. */
export interface LibvirtScene {
  readonly service: BenchService;
  readonly raw: LibvirtConnection;
  readonly host: KvmHost;
}

export const SCENES = ["test", "qemu"] as const;
/** libvirt's own mock inside a daemon, or real QEMU without acceleration. */
export type SceneKind = (typeof SCENES)[number];

const MOCK_DOMAIN = "test";
// The most that is taken.
const OVERCOMMIT = { cpu: 64, memory: 16 };

/** Runs `work` in a scene that is made for it and removed afterwards. Needs root. */
export async function withLibvirtScene(
  kind: SceneKind,
  work: (scene: LibvirtScene) => Promise<void>,
): Promise<void> {
  const host = await startKvmHost();
  try {
    const raw = await connectRaw(host, kind);
    try {
      const service = await startBenchService();
      try {
        await register(service, kind === "test" ? host.testUri : host.uri);
        await work({ service, raw, host });
      } finally {
        await service.stop();
      }
    } finally {
      await raw.close();
    }
  } finally {
    await host.stop();
  }
}

/** Held open all the time: the mock's state dies with its last connection. */
async function connectRaw(host: KvmHost, kind: SceneKind): Promise<LibvirtConnection> {
  const uri = kind === "test" ? "test:///default" : "qemu:///system";
  const raw = await connectLibvirt({ transport: { kind: "unix", path: host.socketPath }, uri });
  if (kind === "test") {
    // It uses more memory than the mock has.
    const { domain } = await raw.call(rpc.domainLookupByName, { name: MOCK_DOMAIN });
    await raw.call(rpc.domainDestroyFlags, { domain, flags: 0 });
    await raw.call(rpc.domainUndefineFlags, { domain, flags: 0 });
  }
  return raw;
}

async function register(service: BenchService, uri: string): Promise<void> {
  const body = { name: "bench", uri, accelerator: "tcg", overcommit: OVERCOMMIT };
  await service.request("POST", "/v1/hosts?wait=60", body);
}

/** A VM that boots from the network, and so has nothing but its domain. */
export function disklessVm(name: string, runPolicy: "running" | "stopped"): object {
  const nics = [{ name: "eth0", network: "default" }];
  return { name, spec: { cpu: { count: 1 }, memoryMib: 64, runPolicy, nics } };
}
