import type { APIGatewayAuthorizerResult, StatementEffect } from 'aws-lambda';
import { FunctionError } from '../lambda/environment.ts';
import type { LambdaHost } from '../lambda/host.ts';
import { authorizerEvent, type GatewayRequest, methodArn } from './event.ts';

/** What API Gateway makes of its REQUEST authorizer's answer: a verdict, or the gateway response to give. */
export type Decision =
  | { allowed: APIGatewayAuthorizerResult }
  | { refused: 'UNAUTHORIZED' | 'AUTHORIZER_FAILURE' | 'AUTHORIZER_CONFIGURATION_ERROR' }
  | { refused: 'ACCESS_DENIED'; context: Record<string, unknown> };

export async function authorize(lambda: LambdaHost, request: GatewayRequest): Promise<Decision> {
  // Without a token too: API Gateway looks for the identity source itself only where verdicts are cached.
  let result: unknown;
  try {
    result = await lambda.invoke('authorizer', authorizerEvent(request));
  } catch (error) {
    // This very message means 401; whatever else it throws is its own failure.
    const unauthorized = error instanceof FunctionError && error.message === 'Unauthorized';
    if (unauthorized) return { refused: 'UNAUTHORIZED' };
    console.error(`authorizer: ${error instanceof Error ? error.message : error}`);
    return { refused: 'AUTHORIZER_FAILURE' };
  }
  if (!isVerdict(result)) return { refused: 'AUTHORIZER_CONFIGURATION_ERROR' };
  if (allows(result, methodArn(request))) return { allowed: result };
  return { refused: 'ACCESS_DENIED', context: { ...result.context } };
}

interface Statement {
  Effect: StatementEffect;
  Action: string | string[];
  Resource: string | string[];
}

/** Evaluates as IAM does: nothing is allowed unless it is said, and a Deny outweighs every Allow. */
function allows({ policyDocument }: APIGatewayAuthorizerResult, arn: string): boolean {
  const applying = (policyDocument.Statement as unknown as Statement[]).filter(
    ({ Action, Resource }) =>
      [Action].flat().some((action) => matches(action, 'execute-api:Invoke')) &&
      [Resource].flat().some((resource) => matches(resource, arn)),
  );
  return (
    applying.some(({ Effect }) => Effect === 'Allow') && !applying.some(({ Effect }) => Effect === 'Deny')
  );
}

function matches(pattern: string, text: string): boolean {
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${source}$`).test(text);
}

/** API Gateway takes flat values only in the context. */
function isVerdict(result: unknown): result is APIGatewayAuthorizerResult {
  const { principalId, policyDocument, context = {} } = (result ?? {}) as Partial<APIGatewayAuthorizerResult>;
  const flat = Object.values(context ?? {}).every((value) =>
    ['string', 'number', 'boolean'].includes(typeof value),
  );
  return typeof principalId === 'string' && Array.isArray(policyDocument?.Statement) && flat;
}
