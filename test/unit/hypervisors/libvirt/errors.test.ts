import { describe, expect, it } from "vitest";
import { HypervisorError } from "../../../../src/hypervisors/hypervisor.ts";
import { toHypervisorError } from "../../../../src/hypervisors/libvirt/errors.ts";
import {
  CallTimeoutError,
  ConnectionError,
  errorCode,
  errorDomain,
  HostKeyUnknownError,
  LibvirtError,
} from "../../../../src/libvirt-rpc/index.ts";

function libvirtError(code: number, message: string, domain: number = errorDomain.qemu): LibvirtError {
  const rest = { level: 2, str1: null, str2: null, str3: null, int1: 0, int2: 0 };
  return new LibvirtError("domainCreateWithFlags", { code, domain, message, ...rest });
}

describe("an error of libvirt", () => {
  it.each([
    [errorCode.noDomain, "Domain not found: no domain with matching uuid 'x'", "not-found"],
    [errorCode.noStorageVol, "Storage volume not found: no storage vol with matching path 'x'", "not-found"],
    [errorCode.noStoragePool, "Storage pool not found", "not-found"],
    [errorCode.noNetwork, "Network not found: no network with matching name 'x'", "not-found"],
    [errorCode.domExist, "domain 'a' already exists with uuid x", "already-exists"],
    [errorCode.operationFailed, "domain 'a' already exists with uuid x", "already-exists"],
    [errorCode.operationFailed, "volume target path '/a' already exists", "already-exists"],
    [errorCode.storageVolExist, "storage volume name 'a' already in use.", "already-exists"],
    [errorCode.operationInvalid, "Requested operation is not valid: domain is not running", "invalid-state"],
    [errorCode.operationFailed, "operation failed: domain is not running", "invalid-state"],
    [errorCode.operationInvalid, "volume 'a' is still in use.", "busy"],
    [errorCode.internalError, "pool 'a' has asynchronous jobs running.", "busy"],
    [errorCode.resourceBusy, "Requested operation is not valid", "busy"],
    [errorCode.systemError, "cannot write data: No space left on device", "storage-full"],
    [errorCode.internalError, "qemu-img: error while writing: No space left on device", "storage-full"],
    [errorCode.internalError, "cannot set up guest memory 'pc.ram': Cannot allocate memory", "no-capacity"],
    [errorCode.xmlError, "XML error: missing name", "invalid-spec"],
    [errorCode.configUnsupported, "unsupported configuration: x", "invalid-spec"],
    [errorCode.noSupport, "this function is not supported by the connection driver", "unsupported"],
    [errorCode.authFailed, "authentication failed", "authentication"],
    [errorCode.internalError, "something else", "failed"],
    [9999, "an error of a libvirt to come", "failed"],
  ])("%i, %s, is %s, in libvirt's words", (code, message, reason) => {
    const error = libvirtError(code, message);
    const turned = toHypervisorError(error);
    expect(turned).toBeInstanceOf(HypervisorError);
    expect(turned).toMatchObject({ reason, message, cause: error, details: { libvirtCode: String(code) } });
  });

  it("about a guest that an earlier call holds is busy, and says what ends that", () => {
    const message = "Timed out during operation: cannot acquire state change lock";
    expect(toHypervisorError(libvirtError(errorCode.operationTimeout, message))).toMatchObject({
      reason: "busy",
      message: expect.stringMatching(/^Timed out.*its QEMU may hang: a forced stop ends it\.$/) as unknown,
    });
  });

  it("about a file that is missing is not found, whoever misses it", () => {
    const message = "Cannot access storage file '/a': No such file or directory";
    expect(toHypervisorError(libvirtError(errorCode.systemError, message))).toMatchObject({
      reason: "not-found",
    });
  });

  it("about an unknown procedure is unsupported", () => {
    const error = libvirtError(errorCode.rpc, "unknown procedure: 999", errorDomain.rpc);
    expect(toHypervisorError(error)).toMatchObject({ reason: "unsupported", retryable: false });
  });
});

describe("an error of the connection", () => {
  it.each([
    ["refused", "unreachable", "words. See that libvirtd runs on the host, and that the network reaches it."],
    ["closed", "unreachable", "words. See that libvirtd runs on the host, and that the network reaches it."],
    [
      "timeout",
      "unreachable",
      "words. See whether libvirtd on the host hangs, and whether the network reaches it.",
    ],
    ["protocol", "unreachable", "words"],
    ["auth", "authentication", "words"],
    ["tls", "authentication", "words"],
  ] as const)("%s is %s, and says what to do", (kind, reason, message) => {
    expect(toHypervisorError(new ConnectionError(kind, "words"))).toMatchObject({ reason, message });
  });

  it("about a host key carries its fingerprint", () => {
    const offered = { algorithm: "ssh-ed25519", fingerprint: "SHA256:abc" };
    expect(toHypervisorError(new HostKeyUnknownError("unknown", offered, true))).toMatchObject({
      reason: "host-key-unknown",
      retryable: false,
      details: { fingerprint: "SHA256:abc", algorithm: "ssh-ed25519", changed: "true" },
    });
    expect(toHypervisorError(new HostKeyUnknownError("unknown", null, false))).toMatchObject({
      details: { changed: "false" },
    });
  });

  it("about our deadline is a timeout, and a retry can help", () => {
    expect(toHypervisorError(new CallTimeoutError("domainSuspend", 100))).toMatchObject({
      reason: "timeout",
      retryable: true,
    });
  });
});

describe("what is none of libvirt's", () => {
  it("is aborted when it is the signal's reason, else passed on as it is", () => {
    const stop = new AbortController();
    const reason = new Error("given up");
    stop.abort(reason);
    expect(toHypervisorError(reason, stop.signal)).toMatchObject({ reason: "aborted", cause: reason });
    const leaseIsOver = new Error("the lease is over");
    expect(toHypervisorError(leaseIsOver, stop.signal)).toBe(leaseIsOver);
    const own = new HypervisorError("foreign", "not ours");
    expect(toHypervisorError(own)).toBe(own);
  });
});
