import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { type ConsoleLogAbility, HypervisorError } from "../../../../src/hypervisors/hypervisor.ts";
import { consoleLogAbility, consoleLogName } from "../../../../src/hypervisors/xl/console-log.ts";
import { temporaryDirectory } from "../../../fixtures/temporary-directory.ts";
import { call, LocalHost } from "./local-host.ts";

const domain = { uuid: "0192aaaa-0000-7000-8000-00000000abcd", name: "web-1-00000000abcd", pool: "default" };
const NAME = "guest-web-1-00000000abcd.log";

let directory: string;
let host: LocalHost;
let log: ConsoleLogAbility;

beforeEach(async () => {
  directory = await temporaryDirectory();
  host = new LocalHost();
  log = consoleLogAbility(host, { directory, refuseForeign: async () => undefined });
});

const write = (name: string, content: string | Uint8Array): Promise<void> =>
  writeFile(join(directory, name), content);

async function read(maxBytes = 1000): Promise<string> {
  return Buffer.from(await log.readConsoleLog(domain, maxBytes, call)).toString("latin1");
}

describe("a console's log", () => {
  it("that nobody wrote is empty, and so is one without its directory", async () => {
    expect(await read()).toBe("");
    const nowhere = consoleLogAbility(host, {
      directory: join(directory, "not-there"),
      refuseForeign: async () => undefined,
    });
    expect(await nowhere.readConsoleLog(domain, 9, call)).toHaveLength(0);
    await nowhere.deleteConsoleLog(domain, call);
  });

  it("is read as the bytes that the guest wrote", async () => {
    const bytes = Uint8Array.from({ length: 256 }, (_, index) => index);
    await write(NAME, bytes);
    expect(Buffer.from(await log.readConsoleLog(domain, 1000, call))).toEqual(Buffer.from(bytes));
  });

  it("is read from its end, and on into what was turned over", async () => {
    await write(`${NAME}.1`, "0123456789");
    await write(NAME, "abcdef");
    expect(await read(4)).toBe("cdef");
    expect(await read(6)).toBe("abcdef");
    expect(await read(9)).toBe("789abcdef");
    expect(await read()).toBe("0123456789abcdef");
    expect(await read(0)).toBe("");
  });

  it("that cannot be read says so", async () => {
    const failing = new LocalHost();
    failing.readBytes = async () => ({
      exitCode: 1,
      stdout: Buffer.alloc(0),
      stderr: "tail: cannot open 'guest' for reading: Permission denied\n",
    });
    const reading = consoleLogAbility(failing, { directory, refuseForeign: async () => undefined });
    await expect(reading.readConsoleLog(domain, 9, call)).rejects.toMatchObject({ reason: "authentication" });
  });

  it("is removed with all that was turned over, and no other", async () => {
    const others = ["guest-web-1.log", `${NAME}.1x.log`, `guest-x${NAME}`, "hypervisor.log"];
    const parts = [NAME, ...["1", "2.gz", "10", "11.gz"].map((part) => `${NAME}.${part}`)];
    for (const name of [...others, ...parts]) await write(name, "x");
    await log.deleteConsoleLog(domain, call);
    await log.deleteConsoleLog(domain, call);
    expect((await readdir(directory)).toSorted()).toEqual(others.toSorted());
    expect(host.locks).toEqual([domain.uuid, domain.uuid]);
  });

  it("of a foreign domain stays", async () => {
    await write(NAME, "x");
    const foreign = new HypervisorError("foreign", "it is another installation's");
    const refusing = consoleLogAbility(host, { directory, refuseForeign: () => Promise.reject(foreign) });
    await expect(refusing.deleteConsoleLog(domain, call)).rejects.toBe(foreign);
    expect(await readdir(directory)).toEqual([NAME]);
  });

  it("is not removed without the right to change the host", async () => {
    await write(NAME, "x");
    const refusal = new Error("the lease is over");
    const refused = {
      ...call,
      beforeSend: () => {
        throw refusal;
      },
    };
    await expect(log.deleteConsoleLog(domain, refused)).rejects.toBe(refusal);
    expect(await readdir(directory)).toEqual([NAME]);
  });

  it("that could not be removed says so", async () => {
    await mkdir(join(directory, NAME));
    await expect(log.deleteConsoleLog(domain, call)).rejects.toThrow("removing the console log of 'web-1-");
  });

  it.each(["../../etc/passwd", "a b", "Domain-0", ""])(
    "is none for a domain that is called %j",
    async (name) => {
      expect(() => consoleLogName(name)).toThrow("cannot name a domain");
      await expect(log.readConsoleLog({ ...domain, name }, 9, call)).rejects.toMatchObject({
        reason: "invalid-spec",
      });
      await expect(log.deleteConsoleLog({ ...domain, name }, call)).rejects.toMatchObject({
        reason: "invalid-spec",
      });
    },
  );
});
