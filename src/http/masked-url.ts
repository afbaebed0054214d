/** A console's ticket is the one secret that stands in a path; by its beginning it is known wherever it stands. */
export const TICKET_PREFIX = "console_";

/** A URL as it may be logged. */
export function maskTickets(url: string): string {
  return url.replaceAll(/console(?:_|%5f)[^/?#&]*/gi, `${TICKET_PREFIX}***`);
}
