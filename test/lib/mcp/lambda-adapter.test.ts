import { Writable } from 'node:stream';
import type { APIGatewayProxyEvent, Context } from 'aws-lambda';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import type { Endpoint } from '../../../functions/lib/mcp/endpoint.ts';
import { createHandler } from '../../../functions/lib/mcp/lambda-adapter.ts';
import { acme, call, type LogLine, testEndpoint } from './support.ts';

/** As Lambda's: status and headers leave with the first write, and an end without one sends neither. */
class ResponseStream extends Writable {
  pending: object | undefined;
  head: { statusCode: number; headers: Record<string, string> } | undefined;
  body = '';
  override _write(chunk: Buffer, _: string, done: () => void) {
    this.head ??= this.pending as NonNullable<typeof this.head>;
    this.body += chunk.toString();
    done();
  }
}

beforeAll(() => {
  const from = (stream: ResponseStream, head: object) => Object.assign(stream, { pending: head });
  vi.stubGlobal('awslambda', { HttpResponseStream: { from } });
});

const authorizer = { tenant: acme, principal: 'ann', scopes: 'things:read', auth: 'oidc:a' };

function eventFor(change: Record<string, unknown> = {}): APIGatewayProxyEvent {
  return {
    httpMethod: 'POST',
    path: '/mcp',
    multiValueHeaders: {
      'Content-Type': ['application/json'],
      Accept: ['application/json, text/event-stream'],
    },
    body: JSON.stringify(call('whoami', { text: 'é' })),
    isBase64Encoded: false,
    requestContext: { requestId: 'r-1', authorizer },
    ...change,
  } as unknown as APIGatewayProxyEvent;
}

async function invoke(event: APIGatewayProxyEvent, endpoint: Endpoint = testEndpoint().endpoint) {
  const faults: LogLine[] = [];
  const stream = new ResponseStream();
  const context = { getRemainingTimeInMillis: () => 10_000 } as Context;
  const handler = createHandler(endpoint, (level, message, fields) =>
    faults.push({ level, message, fields }),
  );
  await handler(event, stream as never, context);
  return { ...stream.head!, body: stream.body, ended: stream.writableEnded, faults };
}

test('an event becomes a call, its answer a stream', async () => {
  const answer = await invoke(eventFor());
  expect(answer).toMatchObject({
    statusCode: 200,
    ended: true,
    headers: { 'content-type': 'application/json' },
  });
  expect(JSON.parse(answer.body).result.structuredContent).toEqual({
    tenant: acme,
    principal: 'ann',
    text: 'é',
  });
});

test('a body in base64 is the same body', async () => {
  const body = Buffer.from(eventFor().body!).toString('base64');
  expect((await invoke(eventFor({ body, isBase64Encoded: true }))).body).toBe(
    (await invoke(eventFor())).body,
  );
});

test('an answer without a body still has its status', async () => {
  const body = JSON.stringify({ jsonrpc: '2.0', method: 'notifications/initialized' });
  expect(await invoke(eventFor({ body }))).toMatchObject({ statusCode: 202, body: '', ended: true });
});

test('request id and deadline reach the endpoint, the latter with time left to answer', async () => {
  const endpoint = vi.fn<Endpoint>(async () => new Response('{}'));
  await invoke(eventFor(), endpoint);
  const [, principal, deadline, requestId] = endpoint.mock.calls[0]!;
  expect([principal, requestId]).toEqual([authorizer, 'r-1']);
  expect(deadline).toBeLessThan(Date.now() + 10_000);
  expect(deadline).toBeGreaterThan(Date.now() + 5_000);
});

describe('who calls is what the authorizer said, or nobody', () => {
  const parts = ['tenant', 'principal', 'scopes', 'auth'] as const;
  const verdicts: [name: string, requestContext: object][] = [
    ['no authorizer', {}],
    ['an empty verdict', { authorizer: {} }],
    ...parts.map(
      (part) => [`no ${part}`, { authorizer: { ...authorizer, [part]: undefined } }] as [string, object],
    ),
    ['an empty tenant', { authorizer: { ...authorizer, tenant: '' } }],
    ['a tenant that is not text', { authorizer: { ...authorizer, tenant: { id: acme } } }],
  ];
  test.each(verdicts)('%s', async (_, requestContext) => {
    const endpoint = vi.fn<Endpoint>();
    const headers = { 'X-Tenant': ['globex'], Authorization: ['Bearer x'] };
    const answer = await invoke(eventFor({ requestContext, multiValueHeaders: headers }), endpoint);
    expect(endpoint).not.toHaveBeenCalled();
    expect(answer.statusCode).toBe(401);
    expect(JSON.parse(answer.body).error.data.code).toBe('unauthenticated');
    expect(answer.faults).toHaveLength(1);
  });

  test('the address names no tenant, and a header that tries is refused', async () => {
    const addressed = await invoke(eventFor({ path: '/mcp?tenant=globex' }));
    expect(JSON.parse(addressed.body).result.structuredContent.tenant).toBe(acme);
    const multiValueHeaders = { ...eventFor().multiValueHeaders, 'X-Tenant': ['globex'] };
    const named = await invoke(eventFor({ multiValueHeaders }));
    expect(JSON.parse(named.body).error.data.code).toBe('tenant_named');
  });
});

test('a header that is not HTTP is refused', async () => {
  const answer = await invoke(eventFor({ multiValueHeaders: { 'X-Bad': ['a\nb'] } }));
  expect([answer.statusCode, JSON.parse(answer.body).error.data.code]).toEqual([400, 'malformed_request']);
});

test('a header sent twice equals neither', async () => {
  const twice = { ...eventFor().multiValueHeaders, 'MCP-Protocol-Version': ['2025-11-25', '2026-07-28'] };
  expect((await invoke(eventFor({ multiValueHeaders: twice }))).statusCode).toBe(400);
});

test('a caller who goes away aborts the call', async () => {
  const stream = new ResponseStream();
  let signal: AbortSignal | undefined;
  const endpoint: Endpoint = async (request) => {
    signal = request.signal;
    stream.destroy();
    await new Promise((resolve) => signal!.addEventListener('abort', resolve, { once: true }));
    return new Response('{}');
  };
  const context = { getRemainingTimeInMillis: () => 10_000 } as Context;
  await createHandler(endpoint, () => {})(eventFor(), stream as never, context);
  expect(signal?.aborted).toBe(true);
  expect(stream.body).toBe('');
});
