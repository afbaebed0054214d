// The import law. Imports go down only; docs/architecture.md explains the layers.

/** From top to bottom. What is on one line are siblings. */
const LAYERS = [
  ["main.ts", "service.ts", "openapi.ts"],
  ["app.ts", "worker.ts"],
  ["consoles/"],
  ["vms/"],
  ["volumes/"],
  ["image-cache/"],
  ["hosts/", "images/", "networks/", "projects/", "ssh-keys/", "tokens/"],
  ["operations/", "events/"],
  ["http/", "hypervisors/"],
  ["db/", "libvirt-rpc/"],
  ["config.ts", "secret-key.ts", "lib/"],
];

const quoted = (path) => path.replaceAll(".", "\\.");
const anyOf = (paths) => `^src/(${paths.map(quoted).join("|")})`;

const upwards = LAYERS.flatMap((layer, index) => {
  const above = LAYERS.slice(0, index).flat();
  if (above.length === 0) return [];
  return {
    name: `downwards-only-from-${layer.map((path) => path.replace(/[^a-z]+$/, "").replace(".", "-")).join("-")}`,
    comment: "Imports go down only: move what is shared further down, or pass it in from above.",
    severity: "error",
    from: { path: anyOf(layer) },
    to: { path: anyOf(above) },
  };
});

// What a feature shows its siblings: its schemas, its store, and the names of its wake-up channels.
const OPEN_TO_SIBLINGS = "-(schemas|store|channels)\\.ts$";

const siblings = LAYERS.flatMap((layer) =>
  layer
    .filter((own) => own.endsWith("/"))
    .map((own) => [own, layer.filter((other) => other !== own)])
    .filter(([, others]) => others.length > 0)
    .map(([own, others]) => ({
      name: `no-sibling-of-${own.slice(0, -1)}`,
      comment: "Siblings do not import each other, save a feature's -schemas and -store.",
      severity: "error",
      from: { path: anyOf([own]) },
      to: { path: anyOf(others), pathNot: OPEN_TO_SIBLINGS },
    })),
);

const SOURCE = "^src/(?!setup/)";
const STARTS_PROGRAMS = "^src/(hypervisors|libvirt-rpc|images|db)/";

const kinds = [
  {
    name: "fastify-in-routes-only",
    comment: "Only *-routes.ts, http/ and app.ts know Fastify.",
    severity: "error",
    from: { path: SOURCE, pathNot: "(-routes\\.ts$|^src/http/|^src/app\\.ts$)" },
    to: { path: "node_modules/(@fastify/|@scalar/fastify|fastify)" },
  },
  {
    name: "database-in-stores-only",
    comment: "Only *-store.ts, operations/ and db/ know Prisma or SQL.",
    severity: "error",
    from: { path: SOURCE, pathNot: "(-store\\.ts$|^src/(operations|db)/)" },
    to: { path: "(node_modules/(@prisma/|prisma/|pg/)|^src/db/generated/)" },
  },
  {
    name: "programs-and-sockets-at-the-edge",
    comment: "Only hypervisors/, libvirt-rpc/, db/ and images/ start programs or open sockets.",
    severity: "error",
    from: { path: SOURCE, pathNot: STARTS_PROGRAMS },
    to: { path: "(^(child_process|net|tls|dgram)$|node_modules/execa/)", dependencyTypesNot: ["type-only"] },
  },
  {
    name: "pure-files",
    comment:
      "Schemas, state machines, placement, writers and parsers are pure: text or values in, values out.",
    severity: "error",
    from: { path: "^src/.*/([^/]*-(state|schemas|xml|config)|placement|parse-[^/]*)\\.ts$" },
    to: {
      path: "(^(fs|child_process|net|tls|http|https|dns|os|timers)(/|$)|-store\\.ts$|-service\\.ts$|^src/db/|node_modules/(execa|pg|fastify|pino)/)",
      dependencyTypesNot: ["type-only"],
    },
  },
  {
    name: "libvirt-rpc-stands-alone",
    comment: "It could be published alone.",
    severity: "error",
    from: { path: "^src/libvirt-rpc/" },
    to: { path: "^src/(?!libvirt-rpc/)" },
  },
  {
    name: "drivers-know-no-database-of-ours",
    comment: "A driver sees hosts. The simulated ones keep their world on a connection of their own.",
    severity: "error",
    from: { path: "^src/hypervisors/" },
    to: { path: "^src/db/" },
  },
  {
    name: "drivers-apart",
    comment: "A driver is one folder, known to the registry only.",
    severity: "error",
    from: { path: "^src/hypervisors/([^/]+)/" },
    to: { path: "^src/hypervisors/[^/]+/", pathNot: "^src/hypervisors/$1/" },
  },
  {
    name: "libvirt-rpc-for-its-driver",
    comment:
      "Only the libvirt driver speaks libvirt's protocol; what it knows of ssh is for the xl driver too.",
    severity: "error",
    from: { path: SOURCE, pathNot: "^src/(libvirt-rpc/|hypervisors/(libvirt|xl)/)" },
    to: { path: "^src/libvirt-rpc/" },
  },
  {
    name: "only-ways-to-a-host-of-libvirt-rpc-for-xl",
    severity: "error",
    from: { path: "^src/hypervisors/xl/" },
    to: { path: "^src/libvirt-rpc/", pathNot: "^src/libvirt-rpc/(?:ssh|transports/loopback)\\.ts$" },
  },
  {
    name: "routes-on-top",
    comment: "Nothing in a feature imports its routes; app.ts registers them.",
    severity: "error",
    from: { path: "^src/", pathNot: "^src/app\\.ts$" },
    to: { path: "-routes\\.ts$", dependencyTypesNot: ["type-only"] },
  },
  {
    name: "stores-below-services",
    severity: "error",
    from: { path: "-store\\.ts$" },
    to: { path: "^src/.*-(service|routes|reconciler)\\.ts$" },
  },
  {
    name: "setup-stands-alone",
    comment: "Setup scripts run before anything is installed; the program never needs them.",
    severity: "error",
    from: { path: SOURCE },
    to: { path: "^src/setup/" },
  },
  {
    name: "setup-without-packages",
    comment: "Setup scripts run on Node >= 20 before anything is installed.",
    severity: "error",
    // These run when everything is there.
    from: { path: "^src/setup/.*\\.mjs$", pathNot: "^src/setup/(generate|bench|quickstart)" },
    to: { path: "(node_modules/|^src/(?!setup/).*\\.ts$)", dependencyTypesNot: ["type-only"] },
  },
  {
    name: "no-tests-in-source",
    severity: "error",
    from: { path: "^src/" },
    to: { path: "^test/" },
  },
  {
    name: "no-development-packages",
    comment: "What the program imports must be among its dependencies.",
    severity: "error",
    from: { path: SOURCE },
    to: { dependencyTypes: ["npm-dev"], dependencyTypesNot: ["type-only"] },
  },
  { name: "no-cycles", severity: "error", from: { path: "^src/" }, to: { circular: true } },
  { name: "no-unresolved", severity: "error", from: {}, to: { couldNotResolve: true } },
];

export default {
  forbidden: [...upwards, ...siblings, ...kinds],
  options: {
    doNotFollow: { path: ["node_modules", "^src/db/generated/", "^openapi/"] },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    enhancedResolveOptions: {
      exportsFields: ["exports"],
      conditionNames: ["import", "types", "node", "default"],
    },
  },
};
