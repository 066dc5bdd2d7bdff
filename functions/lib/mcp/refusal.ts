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

/**
 * A tenant that gets no answers, by the error's code. Unknown, deleted and foreign tenants read the same: nothing says
 * which it was.
 */
export const tenantRefusals: Partial<Record<string, Refusal>> = {
  tenant_not_served: refused(403, 'tenant_not_served', 'This account is not served here.'),
  tenant_suspended: refused(
    403,
    'tenant_suspended',
    'This account is suspended: no call will work until it is resumed.',
  ),
  key_revoked: refused(401, 'key_revoked', 'The API key was revoked: no call will work with it.'),
};

function refused(status: number, code: string, message: string): Refusal {
  return { status, rpc: rpc.refused, code, message };
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
