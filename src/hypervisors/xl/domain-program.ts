/** The part of the host program that knows domains; see host-program.ts. */
export const DOMAIN_VERBS = ``;
