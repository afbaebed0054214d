import type { Mutant } from "./mutant.ts";

/** Mistakes in what is built on the engine: placement, observation, drivers, the API's promises, secrets. */
export const FEATURE_MUTANTS: readonly Mutant[] = [
  {
    name: "no-recheck-under-the-lock",
    breaks: "the host's room, where several VMs are placed on one snapshot",
    edits: [
      {
        file: "src/vms/vm-placement.ts",
        find: "const [host] = await placementHosts(tx, free);\n  const placed = host === undefined ? null : fit(request, host);",
        replace: "const placed = candidates.find(({ hostId }) => hostId === free) ?? null;",
      },
    ],
    test: { file: "test/db/vms/placement.test.ts", title: "looks again at a free host" },
  },
  {
    name: "refuses-on-an-old-snapshot",
    breaks: "the last VM that fits: others took the place it was ranked on, not the last one",
    edits: [
      {
        file: "src/vms/vm-placement.ts",
        find: "const READINGS = 5;",
        replace: "const READINGS = 1;",
      },
    ],
    test: { file: "test/db/vms/placement.test.ts", title: "fills each host to its last MiB, not one beyond" },
  },
  {
    name: "undo-of-start-acts-without-looking",
    breaks: "a VM that ran before the start that failed",
    edits: [
      {
        file: "src/vms/actions/start.ts",
        find: "if (context.found === null || context.found.wasOn) return;",
        replace: "",
      },
    ],
    test: { file: "test/unit/vms/start-undo.test.ts", title: "leaves a VM on that was on before it" },
  },
  {
    name: "repeated-volume-is-refused",
    breaks: "a create that is tried again after its volume was made",
    edits: [
      {
        file: "src/hypervisors/libvirt/volumes.ts",
        find: "  if (found !== null) return found;\n  const pool",
        replace: "  if (found !== null) throw noSuchVolume(spec);\n  const pool",
      },
    ],
    test: {
      file: "test/unit/hypervisors/libvirt/volumes.test.ts",
      title: "is taken as it is: whoever made it may have died",
    },
  },
  {
    name: "xl-lock-that-is-none-any-more",
    breaks: "two changes of one domain at once on a Xen host: one holds a lock file that was removed",
    edits: [
      {
        file: "src/hypervisors/xl/host-program.ts",
        find: `[ ! "$lock" -ef "/proc/$$/fd/9" ] || break`,
        replace: "break",
      },
    ],
    test: {
      file: "test/contract/xl-transport.test.ts",
      title: "a change that waited for one that has ended is waited for itself",
    },
  },
  {
    name: "xl-begins-before-it-waits",
    breaks: "a change on a Xen host whose caller went away while it waited",
    edits: [
      {
        file: "src/hypervisors/xl/host-program.ts",
        find: "  while :; do\n    exec 9>>",
        replace: "  printf '${BEGAN_WORD}\\\\n' || exit 1\n  while :; do\n    exec 9>>",
      },
      {
        file: "src/hypervisors/xl/host-program.ts",
        find: "  }\n  printf '${BEGAN_WORD}\\\\n' || exit 1\n",
        replace: "  }\n",
      },
    ],
    test: {
      file: "test/contract/xl-transport.test.ts",
      title: "a change whose caller went away while it waited does not begin",
    },
  },
  {
    name: "delete-host-with-vms",
    breaks: "VMs whose host is deleted under them",
    edits: [
      {
        file: "src/hosts/host-service.ts",
        find: '    throw new DroverError(\n      "in_use",\n      `VMs or volumes are still on host',
        replace: '    throw new DroverError(\n      "internal",\n      `VMs or volumes are still on host',
      },
    ],
    test: { file: "test/api/hosts.test.ts", title: "refuses to delete a host with VMs" },
  },
  {
    name: "address-without-the-lock",
    breaks: "addresses that are taken at the same time: two NICs would want one",
    edits: [
      {
        file: "src/networks/network-store.ts",
        find: "n.id = ANY(${[...ids]}::text[]::uuid[]) ORDER BY n.id\n    FOR NO KEY UPDATE`",
        replace: "n.id = ANY(${[...ids]}::text[]::uuid[]) ORDER BY n.id`",
      },
    ],
    test: { file: "test/api/networks-concurrent.test.ts", title: "gives no address twice" },
  },
  {
    name: "lease-that-stays",
    breaks: "the release of what the host's DHCP gives",
    edits: [
      {
        file: "src/vms/vm-delete.ts",
        find: "        await releaseNetworks(context);\n",
        replace: "",
      },
    ],
    test: { file: "test/api/networks.test.ts", title: "has an address of it" },
  },
  {
    name: "idempotency-key-of-any-token",
    breaks: "the scope of a key: another client's answer would be given",
    edits: [
      {
        file: "src/http/api.ts",
        find: "tokenId: call.caller?.tokenId ?? NIL_UUID,",
        replace: "tokenId: NIL_UUID,",
      },
    ],
    test: { file: "test/api/idempotency.test.ts", title: "is another request in another project" },
  },
  {
    name: "no-if-match",
    breaks: "the refusal of lost updates",
    edits: [
      {
        file: "src/http/etag.ts",
        find: "ifMatch.tags.includes(String(generation))",
        replace: "ifMatch.tags.length > 0",
      },
    ],
    test: { file: "test/api/vms.test.ts", title: "are refused under a stale If-Match" },
  },
  {
    name: "missing-without-an-inventory",
    breaks: "a VM that one failed look would call gone",
    edits: [
      {
        file: "src/vms/vm-reconciler.ts",
        find: "return await shouldBeThere(tx, hostId, gone);",
        replace:
          "await applyMissing(tx, hostId, gone, observedAt); return await shouldBeThere(tx, hostId, gone);",
      },
    ],
    test: {
      file: "test/db/vms/reconciler.test.ts",
      title: "that there is none is for the next inventory to say",
    },
  },
  {
    name: "absent-once-is-gone",
    breaks: "a VM whose domain is not seen for a moment, as in a reboot on Xen",
    edits: [
      {
        file: "src/vms/vm-reconciler.ts",
        find: "known || proven.includes(uuid)",
        replace: "known || proven.length >= 0",
      },
    ],
    test: {
      file: "test/db/vms/reconciler.test.ts",
      title: "takes nothing for missing that was not seen once",
    },
  },
  {
    name: "undo-of-start-throws-memory-away",
    breaks: "the saved memory of a VM whose restore failed half-way",
    edits: [
      {
        file: "src/vms/actions/start.ts",
        find: "if (wasSaved) await saveMemory(context);\n  else await",
        replace: "await",
      },
    ],
    test: { file: "test/unit/vms/start-undo.test.ts", title: "saves again what was saved" },
  },
  {
    name: "old-look-overwrites",
    breaks: "what was seen later than a slow answer",
    edits: [
      {
        file: "src/vms/vm-observation-store.ts",
        find: "      AND (vm.observed_at IS NULL OR vm.observed_at <= ${observedAt})\n      AND (h.inventory_at",
        replace: "      AND (h.inventory_at",
      },
    ],
    test: { file: "test/db/vms/reconciler.test.ts", title: "never overwrites a newer one" },
  },
  {
    name: "foreign-domain-is-changed",
    breaks: "domains that are not ours",
    edits: [
      {
        file: "src/hypervisors/libvirt/domain-lookup.ts",
        find: "if (facts.installationId === installationId) return;",
        replace: "if (facts.vmId !== installationId) return;",
      },
    ],
    test: {
      file: "test/unit/hypervisors/libvirt/domains.test.ts",
      title: "is refused before anything is sent",
    },
  },
  {
    name: "namesake-is-overwritten",
    breaks: "another domain of the same name",
    edits: [
      {
        file: "src/hypervisors/libvirt/domains.ts",
        find: "if (namesake !== null && namesake.uuid !== spec.uuid) {",
        replace: "if (namesake !== null && namesake.uuid === spec.name) {",
      },
    ],
    test: {
      file: "test/unit/hypervisors/libvirt/domains.test.ts",
      title: "of the same name is not replaced",
    },
  },
  {
    name: "unmanaged-not-counted",
    breaks: "the room that others' domains use",
    edits: [
      {
        file: "src/hosts/host-observation-store.ts",
        find: "!(domain.installationId === installationId && ours.has(domain.uuid)),",
        replace: "!(domain.installationId === installationId || ours.has(domain.uuid)),",
      },
    ],
    test: {
      file: "test/db/hosts/inventory.test.ts",
      title: "counts as unmanaged what runs and no VM stands for",
    },
  },
  {
    name: "xml-not-escaped",
    breaks: "XML that holds what a client wrote",
    edits: [
      {
        file: "src/hypervisors/libvirt/xml-writer.ts",
        find: "/[&<>\"'\\t\\n\\r]/g",
        replace: "/[<>\"'\\t\\n\\r]/g",
      },
    ],
    test: {
      file: "test/unit/hypervisors/libvirt/domain-xml.test.ts",
      title: "holds any text unchanged, or is refused",
    },
  },
  {
    name: "page-repeats-its-last-row",
    breaks: "lists that show every row once",
    edits: [
      {
        file: "src/operations/operation-store.ts",
        find: "(o.created_at, o.id) < (",
        replace: "(o.created_at, o.id) <= (",
      },
    ],
    test: { file: "test/db/operations/store.test.ts", title: "lists by page, newest first, and by filter" },
  },
  {
    name: "page-without-the-tie-break",
    breaks: "rows that share the value a page ends with",
    edits: [
      {
        file: "src/db/keyset.ts",
        find: "(${column}, ${table}.id) ${beyond} (${after.value}${cast}, ${after.id}::uuid)",
        replace: "${column} ${beyond} ${after.value}${cast} AND ${after.id}::uuid IS NOT NULL",
      },
    ],
    test: { file: "test/db/vms/pages.test.ts", title: "that were created in the same instant" },
  },
  {
    name: "secret-in-the-log",
    breaks: "the admin token in what is printed at the start",
    edits: [
      {
        file: "src/config.ts",
        find: 'config.adminToken === null ? null : "***"',
        replace: "config.adminToken",
      },
    ],
    test: { file: "test/unit/config.test.ts", title: "holds no secret" },
  },
  {
    name: "import-from-mapped-addresses",
    breaks: "the guard of imports: a private IPv4 address within an IPv6 one",
    edits: [
      {
        file: "src/images/address-guard.ts",
        find: "if (EMBEDDING_V4.some((prefix) => contains(prefix, address))) {",
        replace: "if (EMBEDDING_V4.some((prefix) => contains(prefix, address))) { return null;",
      },
    ],
    test: {
      file: "test/unit/images/address-guard.test.ts",
      title: "says the same of an IPv4 address and of its forms",
    },
  },
  {
    name: "import-checks-one-address",
    breaks: "the guard of imports: a name with a public and a private address",
    edits: [
      {
        file: "src/images/image-download.ts",
        find: "for (const { address } of addresses) {",
        replace: "for (const { address } of addresses.slice(0, 1)) {",
      },
    ],
    test: {
      file: "test/unit/images/image-download.test.ts",
      title: "refuses a name of which one address is not allowed",
    },
  },
];
