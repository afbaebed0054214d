// npm run --silent guest-image: builds the small guest where it is missing and prints shell variables with its files.
import { buildGuestImage, GUEST_KERNEL_ARGS } from "./guest-image.mjs";
import { logLine } from "./progress.mjs";

/** @param {string} text */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const { kernel, initrd, disk } = await buildGuestImage({ log: logLine });
process.stdout.write(
  `GUEST_KERNEL=${quoted(kernel)}\nGUEST_INITRD=${quoted(initrd)}\nGUEST_DISK=${quoted(disk)}\nGUEST_ARGS=${quoted(GUEST_KERNEL_ARGS)}\n`,
);
