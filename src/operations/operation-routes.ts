import { z } from "zod";
import type { Database, Sql } from "../db/client.ts";
import { type Caller, projectScope, reaches } from "../http/auth.ts";
import type { OperationAnswers } from "../http/change.ts";
import { pageOf, pageQuery, pageWindow, requireTimeKey, toPage } from "../http/pagination.ts";
import type { Api } from "../http/route.ts";
import { Id, IdOrName, Name, queryList, TimestampInput, WaitSeconds } from "../http/schemas.ts";
import { DroverError } from "../lib/errors.ts";
import { asId, type OperationId } from "../lib/ids.ts";
import { cancelOperation, retryOperation } from "./operation-cancel.ts";
import type { KindRegistry } from "./operation-kinds.ts";
import { OperationSchema, OperationStateSchema, type OperationView } from "./operation-schemas.ts";
import { getOperation, listOperations, type OperationFilter, operationPageKey } from "./operation-store.ts";

export interface OperationRouteDeps {
  readonly db: Database;
  readonly kinds: KindRegistry;
  readonly operations: OperationAnswers;
}

const OperationPage = pageOf(OperationSchema).meta({ id: "OperationPage" });
const OperationAnswer = z.strictObject({ operation: OperationSchema }).meta({ id: "OperationAnswer" });
const BASE = { access: "token", tag: "Operations" } as const;
const PARAMS = { operation: Id.meta({ description: "Id of the operation." }) };

const OperationKindName = z
  .string()
  .regex(/^[a-zA-Z]{1,32}\.[a-zA-Z]{1,32}$/, "must be of the form vm.create");

const LIST_QUERY = {
  ...pageQuery,
  project: IdOrName.optional().meta({ description: "Only operations of this project." }),
  state: queryList(OperationStateSchema).optional(),
  kind: queryList(OperationKindName).optional().meta({ description: "Such as `vm.create`." }),
  target: Id.optional().meta({ description: "Id of something that it works on." }),
  host: Name.optional().meta({ description: "Name of a host that it touches." }),
  since: TimestampInput.optional().meta({ description: "Created at or after." }),
};

/** Operations are made by other routes; here they are watched, cancelled and tried again. */
export function registerOperationRoutes(api: Api, deps: OperationRouteDeps): void {
  registerReads(api, deps);
  registerChanges(api, deps);
}

function registerReads(api: Api, { db, operations }: OperationRouteDeps): void {
  api.read({
    ...BASE,
    method: "GET",
    path: "/v1/operations",
    operationId: "listOperations",
    summary: "List operations",
    description: "The newest first. A token that is bound to a project sees that project's.",
    query: LIST_QUERY,
    responses: { 200: OperationPage },
    handle: async ({ query, caller, project }) => {
      const { pageSize, pageToken, project: _selected, ...filters } = query;
      const projectId = projectScope(caller, project);
      const binding = { list: "operations", orderBy: "-createdAt", filters: { ...filters, projectId } };
      const request = { pageSize, pageToken };
      const window = requireTimeKey(pageWindow(binding, request));
      const rows = await listOperations(db, { projectId, ...filterOf(filters) }, window);
      const page = toPage(binding, request, rows, operationPageKey, (view) => view);
      return { status: 200, body: page };
    },
  });

  api.read({
    ...BASE,
    method: "GET",
    path: "/v1/operations/:operation",
    operationId: "getOperation",
    summary: "Get an operation",
    description: "With `?wait=30` the answer is held until it has ended, or the time is up.",
    params: PARAMS,
    query: { wait: WaitSeconds },
    responses: { 200: OperationSchema },
    errors: ["not_found"],
    handle: async ({ params, query, caller, signal }) => {
      const id = asId<OperationId>(params.operation);
      const found = await requireOperation(db, id, caller);
      if (query.wait === undefined || query.wait === 0 || found.endedAt !== null) {
        return { status: 200, body: found };
      }
      await operations.waitForEnd(id, query.wait, signal);
      return { status: 200, body: await requireOperation(db, id, caller) };
    },
  });
}

function registerChanges(api: Api, { kinds }: OperationRouteDeps): void {
  api.change({
    ...BASE,
    method: "POST",
    path: "/v1/operations/:operation/cancel",
    operationId: "cancelOperation",
    summary: "Cancel an operation",
    description:
      "One that has not begun ends at once; one that runs is aborted and what it did is undone. A stop or a delete " +
      "that has begun goes forward only and is refused, as is one that has ended otherwise.",
    params: PARAMS,
    responses: { 202: OperationAnswer },
    errors: ["not_found", "invalid_state"],
    change: async (tx, { params, caller }) => {
      const id = asId<OperationId>(params.operation);
      await requireOperation(tx, id, caller);
      if ((await cancelOperation(tx, kinds, id)) === "ended") await requireCancelled(tx, id, caller);
      return { status: 202, body: {}, operation: id };
    },
  });

  api.change({
    ...BASE,
    method: "POST",
    path: "/v1/operations/:operation/retry",
    operationId: "retryOperation",
    summary: "Try an operation again",
    description: "Only one in the state `attention`: it goes on where it stopped.",
    params: PARAMS,
    responses: { 202: OperationAnswer },
    errors: ["not_found", "invalid_state"],
    change: async (tx, { params, caller }) => {
      const id = asId<OperationId>(params.operation);
      await requireOperation(tx, id, caller);
      await retryOperation(tx, kinds, id);
      return { status: 202, body: {}, operation: id };
    },
  });
}

/** The operation, if it is there and the caller reaches it: what one may not see is not there. */
async function requireOperation(db: Sql, id: OperationId, caller: Caller): Promise<OperationView> {
  const found = await getOperation(db, id);
  if (found !== null && reaches(caller, found.projectId)) return found.view;
  throw new DroverError("not_found", `There is no operation ${id}. List them with GET /v1/operations.`);
}

/** Cancelling twice is no error; cancelling what has come to another end is. */
async function requireCancelled(db: Sql, id: OperationId, caller: Caller): Promise<void> {
  const { state } = await requireOperation(db, id, caller);
  if (state === "cancelled") return;
  throw new DroverError("invalid_state", `The operation has ended already: it is ${state}.`, {
    retry: "never",
  });
}

interface Filters {
  readonly state?: OperationFilter["states"] | undefined;
  readonly kind?: readonly string[] | undefined;
  readonly target?: string | undefined;
  readonly host?: string | undefined;
  readonly since?: string | undefined;
}

function filterOf({ state, kind, target, host, since }: Filters): OperationFilter {
  return {
    ...(state === undefined ? {} : { states: state }),
    ...(kind === undefined ? {} : { kinds: kind }),
    ...(target === undefined ? {} : { targetId: target }),
    ...(host === undefined ? {} : { host }),
    ...(since === undefined ? {} : { since: new Date(since) }),
  };
}
