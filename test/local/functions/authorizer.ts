import type { APIGatewayRequestAuthorizerEvent } from 'aws-lambda';

export async function handler(event: APIGatewayRequestAuthorizerEvent) {
  const policy = (Effect: string, context: Record<string, unknown>) => ({
    principalId: 'somebody',
    policyDocument: {
      Version: '2012-10-17',
      Statement: [
        { Action: 'execute-api:Invoke', Effect, Resource: event.methodArn.replace(/\/[A-Z]+\/.*/, '/*') },
      ],
    },
    context,
  });
  switch (event.headers?.authorization ?? event.headers?.Authorization) {
    case 'Bearer good':
      return policy('Allow', { tenant: 'acme', number: 7 });
    case 'Bearer narrow':
      return policy('Deny', { challenge: 'Bearer error="insufficient_scope"', scope: 'inventory:write' });
    case 'Bearer broken':
      throw new TypeError('the authorizer is broken');
    case 'Bearer odd':
      return policy('Allow', { nested: { is: 'not allowed' } });
    default:
      throw new Error('Unauthorized');
  }
}
