// Writes cpio archives in the "newc" form, which the kernel unpacks as its initramfs
// (Documentation/driver-api/early-userspace/buffer-format.rst). Everything in them belongs to root.

/**
 * @typedef {{ path: string, kind: "directory", mode: number }
 *   | { path: string, kind: "file", mode: number, content: Uint8Array | string }
 *   | { path: string, kind: "link", target: string }} ArchiveEntry path: relative, parents come before their children
 */

const TYPE_BITS = { directory: 0o040000, file: 0o100000, link: 0o120000 };

/**
 * @param {readonly ArchiveEntry[]} entries
 * @returns {Buffer}
 */
export function packCpio(entries) {
  const members = entries.map((entry, index) =>
    member(index + 1, entry.path, modeOf(entry), contentOf(entry)),
  );
  return Buffer.concat([...members, member(0, "TRAILER!!!", 0, Buffer.alloc(0))]);
}

/** @param {ArchiveEntry} entry */
function modeOf(entry) {
  return TYPE_BITS[entry.kind] | (entry.kind === "link" ? 0o777 : entry.mode);
}

/** @param {ArchiveEntry} entry */
function contentOf(entry) {
  switch (entry.kind) {
    case "directory":
      return Buffer.alloc(0);
    case "file":
      return Buffer.from(entry.content);
    case "link":
      return Buffer.from(entry.target);
  }
}

/**
 * @param {number} inode
 * @param {string} path
 * @param {number} mode
 * @param {Buffer} content
 */
function member(inode, path, mode, content) {
  const name = Buffer.from(`${path}\0`);
  // uid, gid, links, time, size, the device's and the file's major and minor numbers, name size, checksum.
  const numbers = [inode, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, name.length, 0];
  const header = `070701${numbers.map((number) => number.toString(16).padStart(8, "0")).join("")}`;
  return Buffer.concat([pad(Buffer.concat([Buffer.from(header), name])), pad(content)]);
}

/** @param {Buffer} data */
function pad(data) {
  return Buffer.concat([data, Buffer.alloc(-data.length & 3)]);
}
