import { buildGuestImage, GUEST_KERNEL_ARGS } from "../../../src/setup/guest-image.mjs";
import type { Dom0 } from "./dom0.ts";

export type XenGuestType = "pv" | "pvh" | "hvm";

const DIR = "/srv/guest";
const GUEST_MEMORY_MIB = 128;
const CONSOLE_WAIT_SECONDS = 300;

/** Starts the small guest with xl, from kernel and initrd, with one NIC on the bridge. */
export async function startXenGuest(dom0: Dom0, name: string, type: XenGuestType): Promise<void> {
  const image = await buildGuestImage();
  await dom0.upload(image.kernel, `${DIR}/vmlinuz`);
  await dom0.upload(image.initrd, `${DIR}/initrd`);
  const config = `${DIR}/${name}.cfg`;
  await write(dom0, config, guestConfig(name, type));
  const { exitCode, stderr } = await dom0.run(["xl", "create", config]);
  if (exitCode !== 0) throw new Error(`the guest was not created: ${stderr}`);
}

/** Waits until a guest has written something on its console; the bound is for a busy machine. */
export function waitForXenConsole(dom0: Dom0, name: string, pattern: RegExp): Promise<RegExpExecArray> {
  return dom0.waitForText(`/var/log/xen/console/guest-${name}.log`, pattern, CONSOLE_WAIT_SECONDS);
}

async function write(dom0: Dom0, path: string, content: string): Promise<void> {
  await dom0.run(["sh", "-c", 'printf %s "$2" >"$1"', "sh", path, content]);
}

function guestConfig(name: string, type: XenGuestType): string {
  return `name = "${name}"
type = "${type}"
kernel = "${DIR}/vmlinuz"
ramdisk = "${DIR}/initrd"
cmdline = "${GUEST_KERNEL_ARGS}"
memory = ${String(GUEST_MEMORY_MIB)}
vcpus = 1
vif = [ "bridge=xenbr0" ]
on_poweroff = "destroy"
on_reboot = "restart"
on_crash = "preserve"
`;
}
