import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { claimImageDirectory } from "../../../src/images/image-directory.ts";
import { type InstallationId, newId } from "../../../src/lib/ids.ts";
import { temporaryDirectory } from "../../fixtures/temporary-directory.ts";

const ours = newId<InstallationId>();

describe("claimImageDirectory", () => {
  it("marks a new installation's directory, and lets later processes in", async () => {
    const directory = path.join(await temporaryDirectory(), "images");
    await claimImageDirectory(directory, { installationId: ours, isNewInstallation: true });
    await claimImageDirectory(directory, { installationId: ours, isNewInstallation: false });
    expect((await readdir(directory)).sort()).toEqual(["incoming", "installation-id", "sha256"]);
    expect(await readFile(path.join(directory, "installation-id"), "utf8")).toBe(`${ours}\n`);
    expect((await stat(directory)).mode & 0o777).toBe(0o700);
  });

  it("refuses an unmarked directory later on: other processes keep their images elsewhere", async () => {
    const directory = path.join(await temporaryDirectory(), "images");
    const claim = claimImageDirectory(directory, { installationId: ours, isNewInstallation: false });
    await expect(claim).rejects.toThrow(/is not the one that this installation keeps its images in: share/);
    await expect(claim).rejects.toThrow(`echo ${ours} > ${directory}/installation-id`);
    expect(await readdir(directory)).toEqual([]);
  });

  it("lets an operator move the images and say so", async () => {
    const directory = await temporaryDirectory();
    await writeFile(path.join(directory, "installation-id"), `${ours}\n`);
    await claimImageDirectory(directory, { installationId: ours, isNewInstallation: false });
    expect(await readdir(directory)).toContain("incoming");
  });

  it("refuses another installation's directory", async () => {
    const directory = await temporaryDirectory();
    await claimImageDirectory(directory, { installationId: newId(), isNewInstallation: true });
    await mkdir(path.join(directory, "sha256", "ab"));
    for (const isNewInstallation of [true, false]) {
      await expect(
        claimImageDirectory(directory, { installationId: ours, isNewInstallation }),
      ).rejects.toThrow(/another installation|belongs to the installation/);
    }
  });

  it("takes an empty directory over from a first start that never finished", async () => {
    const directory = await temporaryDirectory();
    await claimImageDirectory(directory, { installationId: newId(), isNewInstallation: true });
    await claimImageDirectory(directory, { installationId: ours, isNewInstallation: true });
    await claimImageDirectory(directory, { installationId: ours, isNewInstallation: false });
  });
});
