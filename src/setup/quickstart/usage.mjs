// What quickstart tells at the end: where the API is, and lines to paste.
import { VM } from "./vm.mjs";

/**
 * @param {import("./service-process.mjs").ServiceProcess} service
 * @param {import("./hosts.mjs").Ground} ground
 */
export function showUsage({ url, token, logFile }, ground) {
  const auth = `-H "Authorization: Bearer ${token}"`;
  const nothingReal = ground.kind === "real" ? "" : "\nThe hosts are SIMULATED: nothing real runs.\n";
  process.stdout.write(`
Drover works.
  URL    ${url}   (browse ${url}/docs)
  token  ${token}
  log    ${logFile}
${nothingReal}
Five lines to paste into another terminal:

  curl -s ${auth} ${url}/v1/vms
  curl -s ${auth} ${url}/v1/vms/${VM}/console/log
  curl -s ${auth} -X POST "${url}/v1/vms/${VM}/reboot?wait=30"
  curl -s ${auth} -X POST "${url}/v1/vms/${VM}/stop?wait=60"
  curl -s ${auth} -X POST "${url}/v1/vms/${VM}/start?wait=30"

Ctrl-C ends it; the VM stays for the next run.
`);
}
