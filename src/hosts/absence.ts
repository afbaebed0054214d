/**
 * How long a domain must not be seen before it is taken for gone, in milliseconds. A host may make a domain anew when its
 * guest reboots: on Xen nobody sees it for about two seconds then.
 */
export const ABSENCE_MS = 5_000;
