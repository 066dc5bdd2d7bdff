/** What a page of another origin may send: everything; `*` leaves `Authorization` out. */
export const sendableHeaders = ['Authorization', '*'] as const;

/** What it may read of an answer: where a login begins, and what the revisions of the protocol say in headers. */
const readableHeaders = [
  'WWW-Authenticate',
  'MCP-Protocol-Version',
  'Mcp-Session-Id',
  'Retry-After',
] as const;

/** Lets a page of this origin read an answer. The token is its own: no cookie or other credential of a browser's is asked for. */
export const readableBy = (origin: string): Readonly<Record<string, string>> => ({
  'Access-Control-Allow-Origin': origin,
  'Access-Control-Expose-Headers': readableHeaders.join(', '),
});
