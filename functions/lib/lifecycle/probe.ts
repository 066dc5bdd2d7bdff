import { randomUUID } from 'node:crypto';
import { productAuth } from '../auth/principal.ts';
import { invokeFunction, type StreamedAnswer } from '../aws/lambda.ts';
import { RetryableError, TenantryError } from '../errors.ts';
import type { TenantId } from '../tenant/tenant.ts';

/**
 * Calls the built-in tool `tenancy_probe` as the tenant, in the MCP function itself: past API Gateway, because isolated
 * subnets don't reach it and we can't make a customer's token. The event is what API Gateway would send.
 * @throws TenantryError `probe_failed`, with what the probe said
 */
export async function probeTenant(functionName: string, tenant: TenantId): Promise<void> {
  const call = {
    jsonrpc: '2.0',
    id: 1,
    method: 'tools/call',
    params: { name: 'tenancy_probe', arguments: { marker: randomUUID() } },
  };
  const { body } = (await invokeFunction(functionName, {
    httpMethod: 'POST',
    path: '/mcp',
    headers: {},
    multiValueHeaders: {
      'content-type': ['application/json'],
      accept: ['application/json, text/event-stream'],
      'mcp-protocol-version': ['2025-11-25'],
    },
    requestContext: {
      requestId: randomUUID(),
      authorizer: { tenant, principal: 'tenantry', scopes: '', auth: productAuth },
    },
    body: JSON.stringify(call),
    isBase64Encoded: false,
  })) as StreamedAnswer;
  const { result, error } = JSON.parse(body) as {
    result?: { isError?: boolean; content: { text: string }[]; structuredContent?: { tenant: string } };
    error?: { message: string };
  };
  if (!result?.isError && result?.structuredContent?.tenant === tenant) return;
  throw new TenantryError(
    'probe_failed',
    `A call through the tenant's data path failed: ${error?.message ?? result?.content[0]?.text ?? 'no answer'}`,
  );
}

/**
 * One call that fails is tried again: what took minutes or hours to make is not given up for it.
 * @throws RetryableError `unavailable`, with what the probe said
 */
export async function tryPath(probe: (tenant: TenantId) => Promise<void>, tenant: TenantId): Promise<void> {
  try {
    await probe(tenant);
  } catch (error) {
    if (!(error instanceof TenantryError)) throw error;
    throw new RetryableError('unavailable', error.message, 5, { cause: error });
  }
}
