// The private libvirt of a directory as a command, for those who must call it through sudo:
//   node command.mjs start DIR GROUP (mask-kvm | keep-kvm)   prints JSON;   node command.mjs stop DIR
import { startMachineLibvirt, stopMachineLibvirt } from "./machine-libvirt.mjs";

const [verb, dir = "", group = "", kvm] = process.argv.slice(2);
if (verb === "start") {
  process.stdout.write(
    JSON.stringify(await startMachineLibvirt({ dir, group, maskKvm: kvm === "mask-kvm" })),
  );
} else if (verb === "stop") {
  await stopMachineLibvirt(dir);
} else {
  throw new Error("start or stop");
}
