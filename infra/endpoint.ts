import { challenge } from '../functions/lib/auth/challenge.ts';
import { readableBy } from '../functions/lib/mcp/cross-origin.ts';
import type { FunctionName } from './functions.ts';

/**
 * What the public endpoint answers, as data: API Gateway is built from it (`infra/constructs/mcp-api.ts`) and the local
 * gateway (`infra/local/gateway/gateway.ts`) reads it, so that a client meets the same status, header and body in both.
 */
export interface Route {
  readonly method: 'POST' | 'GET' | 'DELETE';
  readonly path: string;
  /** `metadata`: answered by the gateway itself (MOCK), so that a login works while every function is down. */
  readonly target: FunctionName | 'metadata';
  /** The authorizer decides first, also on who sends no token: API Gateway does so itself only where verdicts are cached. */
  readonly authorized: boolean;
}

export const routes = [
  { method: 'POST', path: '/mcp', target: 'mcp', authorized: true },
  // Clients probe with GET for a login before they post: they must get 401 first, and 405 (from the function) with a token.
  { method: 'GET', path: '/mcp', target: 'mcp', authorized: true },
  { method: 'DELETE', path: '/mcp', target: 'mcp', authorized: true },
  // For load balancers, status pages and people: one word about the whole, nothing about anybody.
  { method: 'GET', path: '/health', target: 'health', authorized: false },
  // RFC 9728: clients look at the path-inserted address first, then at the root.
  { method: 'GET', path: '/.well-known/oauth-protected-resource/mcp', target: 'metadata', authorized: false },
  { method: 'GET', path: '/.well-known/oauth-protected-resource', target: 'metadata', authorized: false },
] as const satisfies readonly Route[];

/** What the endpoint publishes about itself. */
export interface EndpointFacts {
  /** The resource identifier, `https://…/mcp`: the audience of every token. */
  readonly publicUrl: string;
  /** OIDC issuers; none when only API keys are used. */
  readonly issuers: readonly string[];
  /** Every scope that some tool needs. */
  readonly scopes: readonly string[];
  /** Origins whose pages may call `/mcp`. None: nobody's, and preflight requests are not answered. */
  readonly allowedOrigins: readonly string[];
}

/** RFC 9728. Public, the same for everybody. */
export function protectedResourceMetadata(facts: EndpointFacts) {
  return {
    resource: facts.publicUrl,
    // An empty list is not allowed; absent, clients stop looking for a login: API keys alone serve then.
    ...(facts.issuers.length > 0 && { authorization_servers: facts.issuers }),
    scopes_supported: facts.scopes,
    bearer_methods_supported: ['header'],
    resource_name: 'Tenantry MCP endpoint',
  };
}

/** Clients in a browser read the metadata across origins before they have anything to send. */
export const metadataHeaders = {
  'Content-Type': 'application/json',
  'Cache-Control': 'public, max-age=300',
  'Access-Control-Allow-Origin': '*',
} as const;

/** Where pages may call from, browsers ask so before they do. */
export const preflightPath = '/mcp';
export const preflightMaxAgeSeconds = 600;

export interface GatewayResponse {
  /** Absent: each response type's own. */
  readonly status?: number;
  /**
   * API Gateway's mapping expressions: `'quoted text'`, or `context.…` for one whole value. It cannot join the two,
   * so what depends on the request must arrive complete from the authorizer.
   */
  readonly headers: Readonly<Record<string, string>>;
  /** JSON text; `$context.…` is replaced. */
  readonly body: string;
}

/**
 * Answers that the gateway gives without a function, by API Gateway's response type. They exist here because a function
 * can't give them: API Gateway renames a function's own `WWW-Authenticate` header, which is where a client's login starts.
 */
export function gatewayResponses(facts: EndpointFacts): Record<string, GatewayResponse> {
  if (facts.allowedOrigins.length === 0) return responses(facts);
  // These can't compare origins, and need not: they hold nothing of anybody's, and whoever is no allowed one's page sends no token.
  const readable = Object.entries(readableBy('*')).map(([name, value]) => [name, `'${value}'`]);
  return Object.fromEntries(
    Object.entries(responses(facts)).map(([type, response]) => [
      type,
      { ...response, headers: { ...response.headers, ...Object.fromEntries(readable) } },
    ]),
  );
}

function responses(facts: EndpointFacts): Record<string, GatewayResponse> {
  return {
    UNAUTHORIZED: {
      ...plain(401, 'unauthorized', 'Send a valid access token of this resource as Authorization: Bearer.'),
      headers: { 'WWW-Authenticate': `'${challenge(facts.publicUrl, facts.scopes)}'` },
    },
    // The authorizer denies for one reason only. Its context carries `challenge` (the header, complete) and `scope`;
    // the body repeats the scope, because AWS documents `context.authorizer` for bodies and only implies it for headers.
    ACCESS_DENIED: {
      status: 403,
      headers: { 'WWW-Authenticate': 'context.authorizer.challenge' },
      body: JSON.stringify({
        error: 'insufficient_scope',
        scope: '$context.authorizer.scope',
        message: 'The access token lacks a scope that this tool needs: ask for it and send the new token.',
      }),
    },
    // API Gateway's name for "no such route or method"; its own status for it is 403.
    MISSING_AUTHENTICATION_TOKEN: plain(
      404,
      'not_found',
      'There is nothing at this address: MCP is served at /mcp.',
    ),
    REQUEST_TOO_LARGE: plain(413, 'request_too_large', 'The request body is too large.'),
    THROTTLED: retryable(429, 'throttled', 'Too many requests: wait and try again.'),
    WAF_FILTERED: plain(403, 'filtered', 'The request was refused by the firewall.'),
    // No Retry-After: whether a write was carried out is not known.
    INTEGRATION_TIMEOUT: plain(
      504,
      'timeout',
      'The call took too long: it may or may not have been carried out.',
    ),
    INTEGRATION_FAILURE: plain(
      502,
      'bad_gateway',
      'The service failed: the call may or may not have been carried out.',
    ),
    // The authorizer itself broke: our fault, so never a 401 that would send the caller off to log in again.
    AUTHORIZER_FAILURE: retryable(503, 'unavailable', 'The token could not be checked just now: try again.'),
    AUTHORIZER_CONFIGURATION_ERROR: retryable(
      503,
      'unavailable',
      'The token could not be checked just now: try again.',
    ),
    DEFAULT_4XX: { headers: {}, body: json('bad_request', 'The request was refused.') },
    DEFAULT_5XX: { headers: {}, body: json('internal', 'The service failed: try again later.') },
  };
}

export const json = (error: string, message: string) => JSON.stringify({ error, message });

function plain(status: number, error: string, message: string): GatewayResponse {
  return { status, headers: {}, body: json(error, message) };
}

function retryable(status: number, error: string, message: string): GatewayResponse {
  return { status, headers: { 'Retry-After': "'1'" }, body: json(error, message) };
}
