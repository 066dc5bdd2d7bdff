/** JSON-RPC and MCP error codes that the endpoint itself answers with; the protocol packages add their own. */
export const rpc = {
  parseError: -32700,
  invalidRequest: -32600,
  invalidParams: -32602,
  internal: -32603,
  /** JSON-RPC leaves it to the server; `data.code` says what it is. */
  refused: -32000,
} as const;

export interface Refusal {
  readonly status: number;
  /** JSON-RPC error code. */
  readonly rpc: number;
  /** Stable and typed: `error.data.code`, and the outcome in the log. */
  readonly code: string;
  /** For the caller; says what to do next. */
  readonly message: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Further typed facts beside `code`. */
  readonly data?: Readonly<Record<string, unknown>>;
}

export function refusalResponse(refusal: Refusal, id: string | number | null = null): Response {
  const error = {
    code: refusal.rpc,
    message: refusal.message,
    data: { code: refusal.code, ...refusal.data },
  };
  return Response.json(
    { jsonrpc: '2.0', error, id },
    { status: refusal.status, headers: { ...refusal.headers } },
  );
}
