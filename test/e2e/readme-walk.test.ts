import { spawn } from "node:child_process";
import { readFile, rm } from "node:fs/promises";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { getVmConsoleLog, registerHost } from "../../openapi/sdk/index.ts";
import { type ServiceProcess, startServiceProcess } from "../fixtures/service-process.ts";
import { makeScratchDirectory } from "../fixtures/temporary-directory.ts";
import { type KvmHost, startKvmHost } from "../rigs/kvm/kvm-host.ts";
import { walkBlocks } from "./walk-blocks.ts";

let host: KvmHost;
let service: ServiceProcess;
let dataDir: string;
const blocks = walkBlocks(await readFile("README.md", "utf8"));

beforeAll(async () => {
  dataDir = await makeScratchDirectory();
  host = await startKvmHost();
  service = await startServiceProcess(dataDir);
  await registerHost({
    client: service.client,
    throwOnError: true,
    body: { name: "local", uri: host.uri, accelerator: "tcg" },
    query: { wait: 30 },
  });
}, 120_000);

afterAll(async () => {
  await service.stop();
  await host.stop();
  await rm(dataDir, { recursive: true, force: true });
}, 120_000);

/** One shell for the whole walk, as a reader has one. */
function startShell() {
  const shell = spawn("bash", ["--noprofile", "--norc"], {
    env: { ...process.env, URL: service.url, TOKEN: service.token },
    stdio: ["pipe", "pipe", "pipe"],
  });
  shell.stderr.setEncoding("utf8").on("data", (text: string) => {
    errors += text;
  });
  let errors = "";
  const lines = createInterface({ input: shell.stdout })[Symbol.asyncIterator]();
  return {
    /** Runs a block and returns what it printed. Throws when a command of it failed. */
    async run(block: string): Promise<string> {
      errors = "";
      // Errexit inside the braces only: the shell itself lives on.
      shell.stdin.write(
        `trap 'failed="$failed [$BASH_COMMAND]"' ERR; failed=\n${block}\necho; echo "end-of-block:$failed"\n`,
      );
      let output = "";
      for (let line = await lines.next(); line.done !== true; line = await lines.next()) {
        const end = /^end-of-block:(.*)$/.exec(line.value);
        if (end === null) output += `${line.value}\n`;
        else if (end[1] === "") return output;
        else throw new Error(`failed:${end[1] ?? ""}\n${output}\n${errors}`);
      }
      throw new Error(`the shell ended: ${errors}`);
    },
    end() {
      shell.stdin.end();
    },
  };
}

/**
 * How often the guest was up: by the boots that it told of on its serial console, each once it has its address. It
 * hears its power button only then.
 */
async function countBoots(): Promise<number> {
  const { data } = await getVmConsoleLog({
    client: service.client,
    throwOnError: true,
    path: { vm: "web-1" },
    parseAs: "text",
  });
  const boots = new Set([...data.matchAll(/DROVER-GUEST-UP boot=(\S+)/g)].map(([, boot]) => boot));
  return Math.min(boots.size, data.match(/DROVER-GUEST-IP/g)?.length ?? 0);
}

/** Waits until the guest has told of so many different boots. */
async function untilBoots(count: number): Promise<void> {
  const deadline = performance.now() + 120_000;
  while ((await countBoots()) < count) {
    if (performance.now() > deadline) throw new Error(`the guest did not boot ${count} times`);
    await sleep(250);
  }
}

async function domainState(): Promise<string> {
  const [uuid] = (await host.virsh(["list", "--all", "--uuid"]))
    .split("\n")
    .filter((line) => line.trim() !== "");
  return uuid === undefined ? "none" : (await host.virsh(["domstate", uuid])).trim();
}

/** What virsh must say after a block, and whether the guest boots by it. */
const AFTER: readonly { readonly block: RegExp; readonly state: string; readonly boots: boolean }[] = [
  { block: /"name": "web-1"/, state: "running", boots: true },
  { block: /web-1\/pause/, state: "paused", boots: false },
  { block: /web-1\/resume/, state: "running", boots: false },
  { block: /web-1\/reboot/, state: "running", boots: true },
  { block: /web-1\/reset/, state: "running", boots: true },
  { block: /web-1\/save/, state: "shut off", boots: false },
  { block: /web-1\/restore/, state: "running", boots: false },
  { block: /web-1\/stop/, state: "shut off", boots: false },
  { block: /web-1\/start/, state: "running", boots: true },
  { block: /-X DELETE "\$URL\/v1\/vms\/web-1/, state: "none", boots: false },
];

it("does what the README says, block by block, on a real guest", { timeout: 600_000 }, async () => {
  expect(blocks.length).toBeGreaterThan(12);
  for (const { block } of AFTER) expect(blocks.some((text) => block.test(text))).toBe(true);
  const shell = startShell();
  let booted = 0;
  try {
    for (const block of blocks) {
      const output = await shell.run(block);
      expect(output).not.toContain('"urn:drover:problem');
      expect(output).not.toMatch(/"state":"(failed|cancelled|attention)"/);
      const after = AFTER.find((candidate) => candidate.block.test(block));
      if (after === undefined) continue;
      expect(await domainState(), block).toBe(after.state);
      if (after.boots) await untilBoots(++booted);
    }
  } finally {
    shell.end();
  }
  // What is kept of images is theirs, and they are still there.
  const files = (await host.exec("ls", ["/var/lib/libvirt/images"])).split("\n");
  expect(files.filter((name) => name !== "" && !name.startsWith("drover-image-"))).toEqual([]);
});
