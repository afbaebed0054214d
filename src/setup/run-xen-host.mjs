// npm run xen-host: sets up a real Xen host in an emulated machine and starts it.
import { join } from "node:path";
import { ensurePackages, GUEST_IMAGE_PACKAGES, XEN_HOST_PACKAGES } from "./debian-packages.mjs";
import { buildGuestImage } from "./guest-image.mjs";
import { ensureInstalled } from "./install.mjs";
import { rootAccess } from "./privileges.mjs";
import { logLine, withProgress } from "./progress.mjs";
import { PROJECT_DIR, pinnedNode, projectEnvironment } from "./project.mjs";
import { runVisibly } from "./run-program.mjs";
import { runScript } from "./run-script.mjs";
import { xenVersionOf } from "./xen-host/flavours.mjs";
import { buildXenHost } from "./xen-host.mjs";

await runScript(async () => {
  const version = xenVersionOf(process.env["DROVER_TEST_XEN"]);
  await ensureInstalled();
  await ensurePackages([...XEN_HOST_PACKAGES, ...GUEST_IMAGE_PACKAGES], {
    announce: logLine,
    startServices: false,
  });
  await buildGuestImage({ log: logLine });
  await withProgress(logLine, `building the Xen ${version} host`, () =>
    buildXenHost({ version, log: logLine }),
  );
  const command = [pinnedNode(), join(PROJECT_DIR, "test/rigs/xen/main.ts")];
  const prefix = (await rootAccess()) === "sudo" ? ["sudo", "-n", "--preserve-env"] : [];
  const [program = "", ...args] = [...prefix, ...command];
  return runVisibly(program, args, { cwd: PROJECT_DIR, env: projectEnvironment() });
});
