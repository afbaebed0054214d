import { connectLibvirt, type LibvirtConnection } from "../../src/libvirt-rpc/index.ts";

/** Runs something with a connection that is closed afterwards. */
export type Use = <T>(uri: string, use: (connection: LibvirtConnection) => Promise<T>) => Promise<T>;

/** Connects to a daemon's socket for as long as `use` takes. */
export async function withConnection<T>(
  socketPath: string,
  uri: string,
  use: (connection: LibvirtConnection) => Promise<T>,
): Promise<T> {
  const connection = await connectLibvirt({ transport: { kind: "unix", path: socketPath }, uri });
  try {
    return await use(connection);
  } finally {
    await connection.close();
  }
}
