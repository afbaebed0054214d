import { randomBytes } from "node:crypto";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, it } from "vitest";
import {
  createVm,
  getVmScreenshot,
  type OpenConsole,
  openVmConsole,
  registerHost,
} from "../../openapi/sdk/index.ts";
import { startApi, type TestApi } from "../fixtures/api.ts";
import { startBrowser } from "../fixtures/browser.ts";
import { GUEST_BOOT, uploadGuest } from "../fixtures/guest-boot.ts";
import { ok } from "../fixtures/service.ts";
import { type KvmHost, startKvmHost } from "../rigs/kvm/kvm-host.ts";

// A person's way: the links that the API gives, opened in a browser, on a real guest on a host over ssh.

const PATIENCE = { timeout: 120_000, interval: 100 };
const VM = "seen";

let api: TestApi;
let host: KvmHost;
let browser: Browser;

beforeAll(async () => {
  [api, host, browser] = await Promise.all([startApi(), startKvmHost({ ssh: true }), startBrowser()]);
  const { client } = api;
  await uploadGuest(client);
  const { ssh } = host.credentials;
  if (ssh === undefined || host.sshUri === undefined) throw new Error("the host has no sshd");
  const body = { name: "kvm", uri: host.sshUri, accelerator: "tcg" as const, credentials: { ssh } };
  await registerHost({ client, throwOnError: true, body, query: { wait: 30 } });
  const spec = { cpu: { count: 1 }, memoryMib: 192, boot: GUEST_BOOT, placement: { host: "kvm" } };
  const { operation } = await ok(createVm({ client, query: { wait: 60 }, body: { name: VM, spec } }));
  expect(operation.error).toBeNull();
}, 240_000);

afterAll(async () => {
  await browser.close();
  await api.close();
  await host.stop();
}, 120_000);

/** Opens a console's page as a person does, and keeps what it complains of. */
async function open(kind: OpenConsole["kind"]): Promise<{ page: Page; complaints: string[] }> {
  const { url } = await ok(openVmConsole({ client: api.client, path: { vm: VM }, body: { kind } }));
  const page = await browser.newPage();
  const complaints: string[] = [];
  page.on("console", (message) => {
    if (message.type() === "error") complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.goto(url ?? "");
  await expect.poll(() => page.locator("#status").textContent(), PATIENCE).toMatch(/^Connected/);
  return { page, complaints };
}

/** A string that nobody else makes, of keys that are the same on every keyboard. */
function randomWord(): string {
  return `x${BigInt(`0x${randomBytes(8).toString("hex")}`).toString(36)}`.replaceAll(/[yz]/g, "a");
}

/** Types until the answer shows: a guest that is still starting hears nothing. */
async function typeUntil(page: Page, line: string, shows: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + PATIENCE.timeout;
  for (let tries = 0; !(await shows()); tries++) {
    if (performance.now() > deadline) throw new Error(`waited in vain for the answer to "${line}"`);
    if (tries % 20 === 0) {
      await page.keyboard.press("Enter");
      await page.keyboard.type(line, { delay: 10 });
      await page.keyboard.press("Enter");
    }
    await page.waitForTimeout(100);
  }
}

interface Picture {
  readonly width: number;
  readonly height: number;
  /** For each pixel, row by row, whether it is more light than dark. */
  readonly lit: readonly boolean[];
}

/** What the browser sees where `source`, a script, finds an image or a canvas. */
async function look(page: Page, source: string): Promise<Picture> {
  return await page.evaluate<Picture>(`(async () => {
    const it = await ${source};
    const canvas = Object.assign(document.createElement("canvas"), { width: it.width, height: it.height });
    const context = canvas.getContext("2d");
    context.drawImage(it, 0, 0);
    const { data } = context.getImageData(0, 0, it.width, it.height);
    const greens = [...data].filter((_, at) => at % 4 === 1);
    return { width: it.width, height: it.height, lit: greens.map((green) => green > 64) };
  })()`);
}

async function terminalText(page: Page): Promise<string> {
  return (await page.locator(".xterm-rows").innerText()).replaceAll("\u00a0", " ");
}

it("a person types into a guest's serial console and screen, and sees the answers", {
  timeout: 240_000,
}, async () => {
  const serial = await open("serial");
  const answers = async (text: string) => (await terminalText(serial.page)).includes(text);
  const word = randomWord();
  await typeUntil(serial.page, `echo DROVER-"ECHO" ${word}`, () => answers(`DROVER-ECHO ${word}`));

  const screen = await open("vnc");
  const shown = randomWord();
  // What the screen's console holds, as the guest itself sees it.
  const onScreen = async (): Promise<boolean> => {
    await serial.page.keyboard.type(
      `clear; tr -d " " </dev/vcs1 | grep -c answer-${shown}; echo looked-"for" ${shown}`,
    );
    await serial.page.keyboard.press("Enter");
    await expect.poll(() => terminalText(serial.page), PATIENCE).toContain(`looked-for ${shown}`);
    return /^[1-9]/m.test(await terminalText(serial.page));
  };
  // No capitals: the browser's driver presses no shift for them, and a guest hears of keys.
  await typeUntil(screen.page, `echo an''swer-${shown}`, onScreen);

  const { client } = api;
  const path = { vm: VM };
  const answer = await getVmScreenshot({ client, throwOnError: true, path, parseAs: "arrayBuffer" });
  expect(answer.response.headers.get("content-type")).toBe("image/png");
  const base64 = Buffer.from(answer.data as unknown as ArrayBuffer).toString("base64");
  const image = `Object.assign(new Image(), { src: "data:image/png;base64,${base64}" })`;
  const picture = await look(
    await browser.newPage(),
    `(async (image) => { await image.decode(); return image; })(${image})`,
  );
  const canvas = await look(screen.page, 'document.querySelector("canvas")');
  expect([canvas.width, canvas.height]).toEqual([picture.width, picture.height]);
  expect(picture.lit.filter(Boolean).length).toBeGreaterThan(1000);
  const different = picture.lit.filter((lit, at) => lit !== canvas.lit[at]).length;
  // The cursor blinks, and the screen comes compressed with a little loss.
  expect(different).toBeLessThan(picture.lit.length / 500);
  expect([...serial.complaints, ...screen.complaints]).toEqual([]);
});
