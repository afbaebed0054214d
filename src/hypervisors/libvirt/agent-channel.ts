/**
 * The virtio port by which QEMU's agent in the guest and libvirt find each other. A guest without the driver, or without
 * the agent, sees one more PCI device and nothing else.
 */
export const AGENT_CHANNEL = "org.qemu.guest_agent.0";
