// The database side of the schema engine's stand-in: connections, creating databases, and the driver adapter with
// the corrections that migrations need.
import { randomUUID } from "node:crypto";
import { PrismaPg } from "@prisma/adapter-pg";
import { bindMigrationAwareSqlAdapterFactory, ColumnTypeEnum as Type } from "@prisma/driver-adapter-utils";
import pg from "pg";

/** The adapter is asked for even by commands that never connect, such as a diff of two schema files. */
const NO_DATABASE = "postgresql://127.0.0.1:1/none";

// Column types by Postgres oid (pg_type.dat). The catalogue queries return "char" (18), which the adapter refuses
// (prisma/orm#27403), so the stand-in types result columns itself; what is not listed is text.
const TYPE_BY_OID = new Map([
  [16, Type.Boolean],
  [17, Type.Bytes],
  [18, Type.Character],
  [20, Type.Int64],
  [21, Type.Int32],
  [23, Type.Int32],
  [26, Type.Int64],
  [114, Type.Json],
  [700, Type.Float],
  [701, Type.Double],
  [1000, Type.BooleanArray],
  [1002, Type.CharacterArray],
  [1003, Type.TextArray],
  [1005, Type.Int32Array],
  [1007, Type.Int32Array],
  [1009, Type.TextArray],
  [1015, Type.TextArray],
  [1016, Type.Int64Array],
  [1028, Type.Int64Array],
  [1082, Type.Date],
  [1083, Type.Time],
  [1114, Type.DateTime],
  [1184, Type.DateTime],
  [1700, Type.Numeric],
  [2950, Type.Uuid],
  [3802, Type.Json],
]);

/** The same server, another database. */
function withDatabase(/** @type {string} */ url, /** @type {string} */ database) {
  const changed = new URL(url);
  changed.pathname = `/${database}`;
  changed.searchParams.delete("schema");
  return changed.toString();
}

function databaseName(/** @type {string} */ url) {
  return decodeURIComponent(new URL(url).pathname.slice(1)) || "postgres";
}

/** Runs one statement on a connection of its own. */
async function execute(/** @type {string} */ url, /** @type {string} */ sql) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}

/** Null when the database answers; otherwise Prisma's own code and words for what is wrong. */
export async function canConnect(/** @type {string} */ url) {
  try {
    await execute(url, "SELECT 1");
    return null;
  } catch (error) {
    const { username, hostname, port } = new URL(url);
    if (error.code === "3D000")
      return {
        code: "P1003",
        message: `Database \`${databaseName(url)}\` does not exist`,
      };
    if (error.code === "28P01" || error.code === "28000")
      return {
        code: "P1000",
        message: `Authentication failed against database server, the provided database credentials for \`${username}\` are not valid.`,
      };
    return {
      code: "P1001",
      message: `Can't reach database server at \`${hostname}:${port || 5432}\`\n\n${error.message}`,
    };
  }
}

/** Creates the URL's database and returns its name. */
export async function createDatabase(/** @type {string} */ url) {
  const name = databaseName(url);
  await execute(withDatabase(url, "postgres"), `CREATE DATABASE ${pg.escapeIdentifier(name)}`);
  return name;
}

/** Gives a connection (and the transactions it starts) result columns typed by oid. */
function typed(connection) {
  const performIO = connection.performIO.bind(connection);
  connection.queryRaw = async (query) => {
    const { fields, rows } = await performIO(query);
    const columnTypes = fields.map((field) => TYPE_BY_OID.get(field.dataTypeID) ?? Type.Text);
    return {
      columnNames: fields.map((field) => field.name),
      columnTypes,
      rows,
    };
  };
  if (connection.startTransaction) {
    const start = connection.startTransaction.bind(connection);
    connection.startTransaction = async (isolation) => typed(await start(isolation));
  }
  return connection;
}

/**
 * A temporary database on the same server, dropped when disposed of. The adapter's own connectToShadowDb() forgets
 * the database's name when it was given a connection string, and would replay the migrations on the MAIN database.
 */
async function connectToShadowDatabase(/** @type {string} */ url) {
  const name = `prisma_migrate_shadow_db_${randomUUID()}`;
  await execute(url, `CREATE DATABASE "${name}"`);
  const connection = typed(
    await new PrismaPg({
      connectionString: withDatabase(url, name),
      max: 2,
    }).connect(),
  );
  const dispose = connection.dispose.bind(connection);
  connection.dispose = async () => {
    await dispose();
    await execute(url, `DROP DATABASE IF EXISTS "${name}" WITH (FORCE)`);
  };
  return connection;
}

/** The driver adapter as the engine takes it. */
export async function migrationAdapter(/** @type {string | undefined} */ datasourceUrl) {
  const url = new URL(datasourceUrl || NO_DATABASE);
  const schema = url.searchParams.get("schema") ?? undefined;
  url.searchParams.delete("schema");
  const connectionString = url.toString();
  const factory = new PrismaPg({ connectionString, max: 2 }, schema ? { schema } : undefined);
  const connect = factory.connect.bind(factory);
  factory.connect = async () => typed(await connect());
  factory.connectToShadowDb = () => connectToShadowDatabase(connectionString);
  return bindMigrationAwareSqlAdapterFactory(factory);
}
