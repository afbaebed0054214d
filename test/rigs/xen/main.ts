// npm run xen-host: starts a Xen host for people to try things on, and ends it with ctrl-C.
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { buildGuestImage, GUEST_KERNEL_ARGS } from "../../../src/setup/guest-image.mjs";
import { startXenHost } from "./xen-host.ts";

const host = await startXenHost();
const [key, knownHosts] = [join(host.dir, "key"), join(host.dir, "known_hosts")];
writeFileSync(key, host.privateKey, { mode: 0o600 });
writeFileSync(knownHosts, host.knownHosts);
const guest = await buildGuestImage();
const address = `-p ${String(host.sshPort)} root@127.0.0.1`;
process.stdout.write(`${host.name} runs Xen ${host.version} until you press ctrl-C.

for Drover   ${host.uri}
private key  ${key}
known hosts  ${knownHosts}
a shell      ssh -i ${key} -o UserKnownHostsFile=${knownHosts} ${address}
console      tail -f ${join(host.dir, "console.log")}

a guest      kernel  ${guest.kernel}
             ramdisk ${guest.initrd}
             cmdline ${GUEST_KERNEL_ARGS}
`);
await Promise.race(["SIGINT", "SIGTERM"].map((signal) => once(process, signal)));
await host.stop();
