/**
 * Writes small ISO 9660 images (ECMA-119) with Joliet names, all files in the root. Pure: the same files give the same
 * bytes. Offsets are those of the standard; sectors and blocks have 2048 bytes.
 */

export interface IsoFile {
  /** 1 to 30 lower-case letters, digits and hyphens, a letter first. */
  readonly name: string;
  readonly content: Uint8Array;
}

export const SECTOR_BYTES = 2048;
/** As many records as fit into the one sector of a directory, however long their names are. */
const MAX_FILES = 16;
const FILE_NAME = /^[a-z][a-z0-9-]{0,29}$/;
const LABEL = /^[A-Za-z0-9_]{1,16}$/;

/** Where everything before the files stands, in sectors. The first sixteen belong to the system, and are empty. */
const AT = {
  primary: 16,
  joliet: 17,
  terminator: 18,
  primaryTable: 19,
  jolietTable: 21,
  primaryRoot: 23,
  jolietRoot: 24,
  files: 25,
} as const;

const PATH_TABLE_BYTES = 10;
const ROOT_RECORD_BYTES = 34;
const FLAG_DIRECTORY = 2;
const THIS_DIRECTORY = Buffer.of(0);
const PARENT_DIRECTORY = Buffer.of(1);
/** UCS-2, level 3: by this a reader knows Joliet. */
const JOLIET_ESCAPE = Buffer.from("%/E", "latin1");
/** 2000-01-01 00:00:00 UTC everywhere: the same files are the same image, whenever it is written. */
const RECORD_TIME = Buffer.of(100, 1, 1, 0, 0, 0, 0);
const VOLUME_TIME = Buffer.from("2000010100000000\0", "latin1");
const NO_TIME = Buffer.from("0000000000000000\0", "latin1");

/** How the two trees over the same files spell names. */
interface Tree {
  readonly descriptor: number;
  readonly type: 1 | 2;
  readonly root: number;
  readonly table: number;
  readonly text: (text: string) => Buffer;
  readonly blank: Buffer;
  readonly fileName: (name: string) => Buffer;
}

const PRIMARY: Tree = {
  descriptor: AT.primary,
  type: 1,
  root: AT.primaryRoot,
  table: AT.primaryTable,
  text: (text) => Buffer.from(text, "latin1"),
  blank: Buffer.from(" ", "latin1"),
  // The standard's own names have no lower case and no hyphens.
  fileName: (name) => Buffer.from(`${name.toUpperCase().replaceAll("-", "_")}.;1`, "latin1"),
};

const JOLIET: Tree = {
  descriptor: AT.joliet,
  type: 2,
  root: AT.jolietRoot,
  table: AT.jolietTable,
  text: ucs2,
  blank: ucs2(" "),
  fileName: ucs2,
};

interface Placed extends IsoFile {
  readonly sector: number;
}

/**
 * Writes the image.
 * @throws RangeError for a name or label that every reader would not read, two files of one name, or too many files
 */
export function writeIso(label: string, files: readonly IsoFile[]): Uint8Array {
  if (!LABEL.test(label)) throw new RangeError(`an ISO image cannot have the label ${JSON.stringify(label)}`);
  if (files.length > MAX_FILES) throw new RangeError(`an ISO image of ours has at most ${MAX_FILES} files`);
  if (new Set(files.map(({ name }) => name)).size < files.length)
    throw new RangeError("two files of an ISO image have one name");
  const placed = place(files);
  const sectors = placed.reduce<number>(
    (end, file) => Math.max(end, file.sector + sectorsOf(file)),
    AT.files,
  );
  const image = Buffer.alloc(sectors * SECTOR_BYTES);
  for (const tree of [PRIMARY, JOLIET]) {
    writeDescriptor(image, tree, label, sectors);
    writePathTables(image, tree);
    writeRoot(image, tree, placed);
  }
  writeHead(image, AT.terminator, 255);
  for (const { content, sector } of placed) image.set(content, sector * SECTOR_BYTES);
  return image;
}

function place(files: readonly IsoFile[]): Placed[] {
  let sector: number = AT.files;
  return files.map((file) => {
    if (!FILE_NAME.test(file.name))
      throw new RangeError(`an ISO image cannot have a file named ${JSON.stringify(file.name)}`);
    const at = sector;
    sector += sectorsOf(file);
    return { ...file, sector: at };
  });
}

function sectorsOf({ content }: IsoFile): number {
  return Math.ceil(content.length / SECTOR_BYTES);
}

/** The beginning of every volume descriptor. Returns where it starts. */
function writeHead(image: Buffer, sector: number, type: number): number {
  const start = sector * SECTOR_BYTES;
  image[start] = type;
  image.write("CD001", start + 1, "latin1");
  image[start + 6] = 1;
  return start;
}

function writeDescriptor(image: Buffer, tree: Tree, label: string, sectors: number): void {
  const start = writeHead(image, tree.descriptor, tree.type);
  const text = (offset: number, length: number, value: string): void => {
    image.fill(tree.blank, start + offset, start + offset + length - (length % tree.blank.length));
    image.set(tree.text(value), start + offset);
  };
  text(8, 32, "");
  text(40, 32, label);
  both32(image, start + 80, sectors);
  if (tree === JOLIET) image.set(JOLIET_ESCAPE, start + 88);
  both16(image, start + 120, 1);
  both16(image, start + 124, 1);
  both16(image, start + 128, SECTOR_BYTES);
  both32(image, start + 132, PATH_TABLE_BYTES);
  image.writeUInt32LE(tree.table, start + 140);
  image.writeUInt32BE(tree.table + 1, start + 148);
  image.set(directoryRecord(THIS_DIRECTORY, tree.root, SECTOR_BYTES, FLAG_DIRECTORY), start + 156);
  // Of the volume set, the publisher, the preparer, the application; then three names of files.
  for (const offset of [190, 318, 446, 574]) text(offset, 128, "");
  for (const offset of [702, 739, 776]) text(offset, 37, "");
  for (const [index, time] of [VOLUME_TIME, VOLUME_TIME, NO_TIME, NO_TIME].entries())
    image.set(time, start + 813 + index * 17);
  image[start + 881] = 1;
}

/** The root is the only directory. Once with the low byte first, once with the high one. */
function writePathTables(image: Buffer, { table, root }: Tree): void {
  const low = table * SECTOR_BYTES;
  const high = low + SECTOR_BYTES;
  image[low] = image[high] = THIS_DIRECTORY.length;
  image.writeUInt32LE(root, low + 2);
  image.writeUInt32BE(root, high + 2);
  image.writeUInt16LE(1, low + 6);
  image.writeUInt16BE(1, high + 6);
}

function writeRoot(image: Buffer, tree: Tree, files: readonly Placed[]): void {
  const named = files
    .map((file) => ({ file, id: tree.fileName(file.name) }))
    .toSorted((one, other) => Buffer.compare(one.id, other.id));
  const records = [
    directoryRecord(THIS_DIRECTORY, tree.root, SECTOR_BYTES, FLAG_DIRECTORY),
    directoryRecord(PARENT_DIRECTORY, tree.root, SECTOR_BYTES, FLAG_DIRECTORY),
    ...named.map(({ file, id }) => directoryRecord(id, file.sector, file.content.length, 0)),
  ];
  image.set(Buffer.concat(records), tree.root * SECTOR_BYTES);
}

function directoryRecord(id: Buffer, sector: number, size: number, flags: number): Buffer {
  const bytes = ROOT_RECORD_BYTES - 1 + id.length;
  const record = Buffer.alloc(bytes + (bytes % 2));
  record[0] = record.length;
  both32(record, 2, sector);
  both32(record, 10, size);
  record.set(RECORD_TIME, 18);
  record[25] = flags;
  both16(record, 28, 1);
  record[32] = id.length;
  record.set(id, 33);
  return record;
}

/** Numbers stand twice: with the low byte first, then with the high one. */
function both32(target: Buffer, offset: number, value: number): void {
  target.writeUInt32LE(value, offset);
  target.writeUInt32BE(value, offset + 4);
}

function both16(target: Buffer, offset: number, value: number): void {
  target.writeUInt16LE(value, offset);
  target.writeUInt16BE(value, offset + 2);
}

/** UCS-2 with the high byte first. */
function ucs2(text: string): Buffer {
  return Buffer.from(text, "utf16le").swap16();
}
