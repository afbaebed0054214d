// Configuration files of a private libvirt. Pure: text in, text out.

/**
 * @typedef {object} Listen remote transports, on libvirt's own ports
 * @property {string} address
 * @property {boolean} tcp without authentication: for a network nobody else is on
 * @property {boolean} tls with client certificates; keys are in /etc/libvirt/pki
 */

/**
 * @typedef {object} Access
 * @property {Listen} [listen] none: the unix socket only
 * @property {string} [group] whose members may use the unix socket, besides root
 */

/**
 * @param {string} hostUuid
 * @param {Access} [access]
 * @returns {string} libvirtd.conf
 */
export function libvirtdConf(hostUuid, { listen, group } = {}) {
  return settings({
    host_uuid: hostUuid,
    // Without polkit and a service manager the socket's mode is the access control.
    unix_sock_group: group ?? "root",
    unix_sock_rw_perms: group === undefined ? "0700" : "0770",
    auth_unix_ro: "none",
    auth_unix_rw: "none",
    listen_tcp: listen?.tcp === true ? 1 : 0,
    auth_tcp: "none",
    listen_tls: listen?.tls === true ? 1 : 0,
    ...(listen === undefined ? {} : { listen_addr: listen.address }),
    ...(listen?.tls === true
      ? {
          key_file: "/etc/libvirt/pki/server-key.pem",
          cert_file: "/etc/libvirt/pki/server.pem",
          ca_file: "/etc/libvirt/pki/ca.pem",
        }
      : {}),
    log_outputs: "2:file:/var/log/libvirt/libvirtd.log",
    keepalive_interval: 5,
    keepalive_count: 3,
  });
}

/** @returns {string} qemu.conf: all as root, no relabelling, no private /dev, since the mount namespace is private already */
export function qemuConf() {
  return settings({
    user: "root",
    group: "root",
    dynamic_ownership: 0,
    remember_owner: 0,
    security_driver: "none",
    namespaces: [],
    stdio_handler: "logd",
    max_core: 0,
  });
}

/** @returns {string} virtlogd.conf */
export function virtlogdConf() {
  return settings({ log_outputs: "2:file:/var/log/libvirt/virtlogd.log" });
}

/**
 * @param {{ uuid: string, bridge: string, subnet: string }} options subnet: the first three bytes of a /24, "192.168.122"
 * @returns {string} network `default`: NAT, DHCP for .2 to .254
 */
export function defaultNetworkXml({ uuid, bridge, subnet }) {
  // no-ping: dnsmasq otherwise probes each new address for three seconds before it leases it.
  return `<network xmlns:dnsmasq="http://libvirt.org/schemas/network/dnsmasq/1.0">
  <name>default</name>
  <uuid>${uuid}</uuid>
  <forward mode="nat"/>
  <bridge name="${bridge}" stp="off" delay="0"/>
  <ip address="${subnet}.1" netmask="255.255.255.0">
    <dhcp><range start="${subnet}.2" end="${subnet}.254"/></dhcp>
  </ip>
  <dnsmasq:options><dnsmasq:option value="no-ping"/></dnsmasq:options>
</network>
`;
}

/**
 * @param {{ uuid: string, path: string }} options
 * @returns {string} pool `default`: a directory
 */
export function defaultPoolXml({ uuid, path }) {
  return `<pool type="dir">
  <name>default</name>
  <uuid>${uuid}</uuid>
  <source/>
  <target><path>${path}</path></target>
</pool>
`;
}

/** @param {Readonly<Record<string, string | number | readonly string[]>>} values */
function settings(values) {
  return Object.entries(values)
    .map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`)
    .join("");
}
