import { z } from "zod";
import type { Api } from "../http/route.ts";
import { CAPABILITY_DESCRIPTIONS, type DeclaredGuestType } from "../hypervisors/capabilities.ts";
import { CAPABILITIES, GUEST_TYPES, HYPERVISORS } from "../hypervisors/hypervisor.ts";
import { DriverNameSchema } from "./host-schemas.ts";

export interface CapabilityRouteDeps {
  /** What the drivers of this service declare. */
  readonly declared: readonly DeclaredGuestType[];
}

const CapabilityName = z.enum(CAPABILITIES);

const CapabilityTable = z
  .strictObject({
    capabilities: z.array(z.strictObject({ name: CapabilityName, description: z.string() })).meta({
      description: "Every ability, and what it means.",
    }),
    guestTypes: z
      .array(
        z
          .strictObject({
            driver: DriverNameSchema,
            schemes: z.array(z.string()).meta({ description: "Schemes of the URIs of its hosts." }),
            hypervisor: z.enum(HYPERVISORS),
            guestType: z.enum(GUEST_TYPES),
            capabilities: z.array(CapabilityName),
          })
          .meta({ id: "DeclaredGuestType" }),
      )
      .meta({ description: "What each driver can do at best, by hypervisor and guest type." }),
  })
  .meta({ id: "CapabilityTable" });

/** What can be asked for at all. */
export function registerCapabilityRoutes(api: Api, deps: CapabilityRouteDeps): void {
  api.read({
    method: "GET",
    path: "/v1/capabilities",
    access: "token",
    operationId: "getCapabilities",
    tag: "Hosts",
    summary: "Tell what the drivers can do",
    description:
      "What each driver declares for each hypervisor and guest type. A host offers what is declared and what its own probe has found: see `status.facts.guestTypes` of GET /v1/hosts/{host}. What nothing here offers is refused with 409 `capability_unsupported` before anything is touched.",
    responses: { 200: CapabilityTable },
    handle: async () => {
      const capabilities = CAPABILITIES.map((name) => ({ name, description: CAPABILITY_DESCRIPTIONS[name] }));
      const guestTypes = deps.declared.map((row) => ({
        ...row,
        schemes: [...row.schemes],
        capabilities: [...row.capabilities],
      }));
      return { status: 200, body: { capabilities, guestTypes } };
    },
  });
}
