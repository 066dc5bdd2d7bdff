import type { APIGatewayAuthorizerResult, APIGatewayRequestAuthorizerEvent } from 'aws-lambda';
import { RetryableError } from '../errors.ts';
import { challenge } from './challenge.ts';
import type { TokenVerifier } from './verify-token.ts';

export interface AuthorizerOptions {
  readonly verify: TokenVerifier;
  /** The endpoint's public URL. */
  readonly resource: string;
  /** Tool → all scopes it needs, for the step-up answer. */
  readonly toolScopes: Readonly<Record<string, readonly string[]>>;
  /** Why a caller was refused: for operators only. */
  readonly onRefusal: (
    outcome: 'unauthenticated' | 'insufficient_scope' | 'unavailable',
    error?: unknown,
  ) => void;
}

export type Authorizer = (event: APIGatewayRequestAuthorizerEvent) => Promise<APIGatewayAuthorizerResult>;

/**
 * API Gateway's REQUEST authorizer. `Unauthorized` thrown is a 401, a Deny a 403, any other error a 500; the headers of
 * those answers are the gateway's (`infra/endpoint.ts`), because it renames a function's own `WWW-Authenticate`.
 */
export function createAuthorizer({ verify, resource, toolScopes, onRefusal }: AuthorizerOptions): Authorizer {
  return async (event) => {
    const principal = await verify(bearerToken(event) ?? '').catch((error: unknown) => {
      const unavailable = error instanceof RetryableError;
      onRefusal(unavailable ? 'unavailable' : 'unauthenticated', error);
      throw unavailable ? error : new Error('Unauthorized');
    });
    // Clients of revision 2026-07-28 name the tool in headers, so a missing scope is answered here, where the challenge
    // that asks for it can be sent. The endpoint compares header with body and checks the scopes again.
    const needed = neededScopes(event, toolScopes);
    const granted = new Set(principal.scopes.split(' '));
    if (!needed.every((scope) => granted.has(scope))) {
      onRefusal('insufficient_scope');
      return answer('Deny', event, principal.principal, {
        error: 'insufficient_scope',
        scope: needed.join(' '),
        // Complete, because the gateway can put a value into a header but not into a text.
        challenge: challenge(resource, needed, 'insufficient_scope'),
      });
    }
    return answer('Allow', event, principal.principal, { ...principal });
  };
}

function answer(
  effect: 'Allow' | 'Deny',
  event: APIGatewayRequestAuthorizerEvent,
  principalId: string,
  context: Record<string, string>,
): APIGatewayAuthorizerResult {
  // arn:aws:execute-api:<region>:<account>:<api>/<stage>/<method>/<path>: the whole stage, since nothing is cached.
  const stage = event.methodArn.split('/', 2).join('/');
  const Statement = [{ Action: 'execute-api:Invoke', Effect: effect, Resource: `${stage}/*` }];
  return { principalId, policyDocument: { Version: '2012-10-17', Statement }, context };
}

/** The `Authorization` header alone: a token in a URL ends up in logs, and two headers leave open whose caller it is. */
function bearerToken(event: APIGatewayRequestAuthorizerEvent): string | undefined {
  return header(event, 'authorization')?.match(/^Bearer +([A-Za-z0-9._~+/-]+=*)$/i)?.[1];
}

function neededScopes(
  event: APIGatewayRequestAuthorizerEvent,
  toolScopes: AuthorizerOptions['toolScopes'],
): readonly string[] {
  const name = header(event, 'mcp-name');
  if (header(event, 'mcp-method') !== 'tools/call' || !name || !Object.hasOwn(toolScopes, name)) return [];
  return toolScopes[name]!;
}

/** A header that was sent exactly once. */
function header(event: APIGatewayRequestAuthorizerEvent, name: string): string | undefined {
  const values = Object.entries(event.multiValueHeaders ?? event.headers ?? {})
    .filter(([key]) => key.toLowerCase() === name)
    .flatMap(([, value]) => value ?? []);
  return values.length === 1 ? values[0] : undefined;
}
