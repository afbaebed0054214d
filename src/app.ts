import type { FastifyInstance } from "fastify";
import type { Logger } from "pino";
import { serveConsolePages } from "./consoles/console-page-routes.ts";
import { type ConsoleRouteDeps, registerConsoleRoutes } from "./consoles/console-routes.ts";
import type { Database } from "./db/client.ts";
import type { EventFeed } from "./events/event-feed.ts";
import { registerEventRoutes } from "./events/event-routes.ts";
import { type CapabilityRouteDeps, registerCapabilityRoutes } from "./hosts/capability-routes.ts";
import { type HostRouteDeps, registerHostRoutes } from "./hosts/host-routes.ts";
import { registerPoolRoutes } from "./hosts/pool-routes.ts";
import { createApi } from "./http/api.ts";
import type { OperationAnswers } from "./http/change.ts";
import { serveDocsPage } from "./http/docs-page.ts";
import { type Metrics, measureRequests } from "./http/metrics.ts";
import { collectOpenApi, serveOpenApi } from "./http/openapi.ts";
import { createServer } from "./http/server.ts";
import { type ReadinessCheck, registerServiceRoutes } from "./http/service-routes.ts";
import { type HostImageRouteDeps, registerHostImageRoutes } from "./image-cache/host-image-routes.ts";
import { type ImageRouteDeps, registerImageRoutes } from "./images/image-routes.ts";
import type { Clock } from "./lib/clock.ts";
import { registerNetworkRoutes } from "./networks/network-routes.ts";
import type { KindRegistry } from "./operations/operation-kinds.ts";
import { registerOperationRoutes } from "./operations/operation-routes.ts";
import { registerSshKeyRoutes } from "./ssh-keys/ssh-key-routes.ts";
import { registerTokenRoutes } from "./tokens/token-routes.ts";
import { createAuthenticate, createTokenWorks } from "./tokens/token-service.ts";
import { registerDiskRoutes } from "./vms/disks/disk-routes.ts";
import type { VolumeDownloads } from "./vms/disks/volume-download.ts";
import { registerVmRoutes, type VmRouteDeps } from "./vms/vm-routes.ts";
import { registerVolumeRoutes, type VolumeRouteDeps } from "./volumes/volume-routes.ts";

/** What the API needs of the process; made in main.ts. */
export interface AppDeps {
  readonly logger: Logger;
  readonly database: Database;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly readiness: readonly ReadinessCheck[];
  readonly operations: OperationAnswers;
  readonly kinds: KindRegistry;
  readonly feed: EventFeed;
  readonly capabilities: CapabilityRouteDeps;
  readonly hosts: HostRouteDeps;
  readonly hostImages: HostImageRouteDeps;
  readonly images: ImageRouteDeps;
  readonly volumes: VolumeRouteDeps;
  readonly volumeDownloads: VolumeDownloads;
  readonly vms: VmRouteDeps;
  readonly consoles: Omit<ConsoleRouteDeps, "db" | "tokenWorks" | "wake">;
  /** PEM texts; null: plain HTTP. */
  readonly tls: { readonly cert: string; readonly key: string } | null;
}

/** Version of the API as its document states it. */
const API_VERSION = "1.0.0";

/** Builds the API without listening yet. Close it to end its streams and waits. */
export async function buildApp(deps: AppDeps): Promise<FastifyInstance> {
  const { database, clock, operations, metrics, kinds, feed } = deps;
  const app = createServer({ logger: deps.logger, tls: deps.tls ?? undefined });
  measureRequests(app, metrics);
  await collectOpenApi(app, API_VERSION);
  const authenticate = createAuthenticate(database, clock);
  const tokenWorks = createTokenWorks(database, clock);
  const { api, routes } = createApi(app, { database, clock, operations, authenticate });

  registerServiceRoutes(api, deps);
  registerTokenRoutes(api, { db: database, clock });
  registerHostRoutes(api, deps.hosts);
  registerPoolRoutes(api, { db: database });
  registerCapabilityRoutes(api, deps.capabilities);
  registerHostImageRoutes(api, deps.hostImages);
  registerImageRoutes(api, deps.images);
  registerNetworkRoutes(api, { db: database, kinds });
  registerSshKeyRoutes(api, { db: database });
  registerVolumeRoutes(api, deps.volumes);
  registerVmRoutes(api, deps.vms);
  registerDiskRoutes(api, { ...deps.volumes, downloads: deps.volumeDownloads });
  const wake = (): void => {
    operations.wake();
  };
  registerConsoleRoutes(api, { ...deps.consoles, db: database, tokenWorks, wake });
  registerOperationRoutes(api, { db: database, kinds, operations });
  registerEventRoutes(api, { db: database, feed, tokenWorks });

  serveOpenApi(app, routes);
  await serveDocsPage(app);
  serveConsolePages(app, { db: database });
  return app;
}
