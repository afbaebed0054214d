import { Duplex } from "node:stream";

/** What a terminal sends for its keys. */
const KEY = {
  interrupt: 0x03,
  backspace: 0x08,
  newline: 0x0a,
  enter: 0x0d,
  clear: 0x15,
  delete: 0x7f,
} as const;
const FIRST_PRINTABLE = 0x20;
const LINE_MAX_BYTES = 1024;
const PROMPT = "sim# ";

/** The shell of a simulated guest on its serial line: it echoes what is typed, as a terminal does, and can `echo`. */
export class SimShell extends Duplex {
  readonly #bootLog: () => string;
  #line: number[] = [];
  #lastKey = 0;
  #waiting: (() => void) | null = null;

  /** @param bootLog what the guest has written so far */
  constructor(bootLog: () => string) {
    super({ allowHalfOpen: false });
    this.#bootLog = bootLog;
    this.push(`${bootLog()}\r\n${PROMPT}`);
  }

  /** Something that the guest writes by itself. */
  tell(text: string): void {
    if (!this.readableEnded && !this.destroyed) this.push(`\r\n${text}`);
  }

  override _read(): void {
    const go = this.#waiting;
    this.#waiting = null;
    go?.();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    const answer: Buffer[] = [];
    for (const key of chunk) answer.push(this.#press(key));
    // A reader that does not keep up holds up the typing, as flow control of a serial line would.
    if (this.push(Buffer.concat(answer)) || chunk.length === 0) done();
    else this.#waiting = done;
  }

  override _final(done: () => void): void {
    this.push(null);
    done();
  }

  /** What the terminal is to show for a key. */
  #press(key: number): Buffer {
    const afterEnter = this.#lastKey === KEY.enter;
    this.#lastKey = key;
    switch (key) {
      case KEY.newline:
        // The second half of a line end that was two bytes.
        return afterEnter ? Buffer.alloc(0) : this.#enter();
      case KEY.enter:
        return this.#enter();
      case KEY.interrupt:
      case KEY.clear:
        this.#line = [];
        return Buffer.from(`\r\n${PROMPT}`);
      case KEY.backspace:
      case KEY.delete:
        return this.#line.pop() === undefined ? Buffer.alloc(0) : Buffer.from("\b \b");
      default:
        if (key < FIRST_PRINTABLE || this.#line.length >= LINE_MAX_BYTES) return Buffer.alloc(0);
        this.#line.push(key);
        return Buffer.from([key]);
    }
  }

  #enter(): Buffer {
    const line = Buffer.from(this.#line).toString("utf8").trim();
    this.#line = [];
    const answer = line === "" ? "" : `${answerTo(line, this.#bootLog)}\r\n`;
    return Buffer.from(`\r\n${answer}${PROMPT}`);
  }
}

function answerTo(line: string, bootLog: () => string): string {
  const [command = "", rest = ""] = line.split(/\s+(.*)/s);
  switch (command) {
    case "echo":
      return rest.replaceAll(/["']/g, "");
    case "dmesg":
      return bootLog().trimEnd();
    case "help":
      return "echo TEXT, dmesg, help: this guest is simulated.";
    default:
      return `sh: ${command}: not found (this guest is simulated: try help)`;
  }
}
