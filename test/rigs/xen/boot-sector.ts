/** The ports of a PC and of Xen's ACPI (xen/include/public/hvm/ioreq.h, ACPI_PM1A_EVT_BLK_ADDRESS_V1 and what follows). */
const COM1 = 0x3f8;
const PM1A_STATUS = 0xb000;
const PM1A_CONTROL = 0xb004;

const SECTOR_BYTES = 512;
const DISK_BYTES = 1 << 20;
const ORIGIN = 0x7c00;
const GREETING_OFFSET = 0x100;
const GREETING = "BOOT-SECTOR-UP ";

/** What the sector writes to the first serial port when it runs: another text at each boot. */
export const BOOT_SECTOR_MARKER = /BOOT-SECTOR-UP [a-p]{8}/;

const low = (word: number): number => word & 0xff;
const high = (word: number): number => word >> 8;
/** mov dx, port */
const toPort = (port: number): number[] => [0xba, low(port), high(port)];

/** Writes AL to the first serial port, when it takes it. */
const WRITE_BYTE = [
  ...[0x88, 0xc4], // mov ah, al
  ...toPort(COM1 + 5),
  ...[0xec, 0xa8, 0x20, 0x74, 0xfb], // in al, dx; test al, 20h; jz to the in
  ...[0x88, 0xe0], // mov al, ah
  ...toPort(COM1),
  ...[0xee, 0xc3], // out dx, al; ret
];

/** Switches off when the power button was pressed: sleep type 0, which is S5 in Xen's tables, and its enable bit. */
const OBEY = [
  ...toPort(PM1A_STATUS),
  ...[0xed, 0xf6, 0xc4, 0x01, 0x74, 0x07], // in ax, dx; test ah, 1; jz behind the out
  ...toPort(PM1A_CONTROL),
  ...[0xb8, 0x00, 0x20, 0xef], // mov ax, 2000h; out dx, ax
];

/**
 * The smallest guest of a PC's firmware, as the first sector of a disk: it greets on the first serial port, writes back
 * what it is sent there, without double quotes, and switches off when its power button is pressed, if it obeys.
 */
export function bootSector({ obeys }: { readonly obeys: boolean }): Buffer {
  const greetingAt = ORIGIN + GREETING_OFFSET;
  const begin = [
    ...[0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, low(ORIGIN), high(ORIGIN)], // ds = ss = 0; mov sp, 7c00h
    ...[0xbe, low(greetingAt), high(greetingAt)], // mov si, greeting
  ];
  const nextByte = [0xac, 0x84, 0xc0, 0x74, 0x05]; // lodsb; test al, al; jz behind the jump
  const greet = [...nextByte, ...callFrom(begin.length + nextByte.length), 0xeb, 0xf6]; // …; jmp to the lodsb
  // The time stamp's low half as eight letters from a to p.
  const stamp = [
    ...[0x0f, 0x31, 0x66, 0x89, 0xc3, 0xb9, 0x08, 0x00], // rdtsc; mov ebx, eax; mov cx, 8
    ...[0x66, 0xc1, 0xc3, 0x04, 0x88, 0xd8, 0x24, 0x0f, 0x04, 0x61], // rol ebx, 4; mov al, bl; and al, 15; add al, 'a'
  ];
  const stamped = begin.length + greet.length + stamp.length;
  const stampLoop = [...callFrom(stamped), 0xe2, 0xf1]; // …; loop to the rol
  const newline = [0xb0, 0x0a, ...callFrom(stamped + stampLoop.length + 2)];
  const loopAt = stamped + stampLoop.length + newline.length;
  const echo = [
    ...[...toPort(COM1 + 5), 0xec, 0xa8, 0x01, 0x74, 0x0d], // in al, dx; test al, 1; jz behind the jump
    ...[...toPort(COM1), 0xec, 0x3c, 0x22, 0x74, 0xf0], // in al, dx; cmp al, '"'; je to the first
    ...[...callFrom(loopAt + 16), 0xeb, 0xeb], // …; jmp to the first
  ];
  const wait = obeys ? OBEY : [];
  const sleep = [0xfb, 0xf4]; // sti; hlt: the timer wakes it 18 times a second
  const again = [0xeb, 0x100 - (echo.length + wait.length + sleep.length + 2)];
  const code = [...begin, ...greet, ...stamp, ...stampLoop, ...newline, ...echo, ...wait, ...sleep, ...again];
  const disk = Buffer.alloc(DISK_BYTES);
  disk.set(code, 0);
  disk.set(WRITE_BYTE, WRITE_BYTE_OFFSET);
  disk.write(GREETING, GREETING_OFFSET, "latin1");
  disk.set([0x55, 0xaa], SECTOR_BYTES - 2);
  return disk;
}

const WRITE_BYTE_OFFSET = 0x80;

/** call WRITE_BYTE, from this offset in the sector. */
function callFrom(offset: number): number[] {
  const distance = WRITE_BYTE_OFFSET - (offset + 3);
  return [0xe8, low(distance), high(distance) & 0xff];
}
