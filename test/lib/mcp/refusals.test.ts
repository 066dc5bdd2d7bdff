import { describe, expect, test } from 'vitest';
import { RetryableError, TenantryError } from '../../../functions/lib/errors.ts';
import {
  acme,
  answerTo,
  call,
  legacyPost,
  modernPost,
  post,
  principalFor,
  soon,
  testEndpoint,
} from './support.ts';

describe('HTTP', () => {
  test.each(['GET', 'DELETE', 'PUT', 'OPTIONS'])('%s is not served', async (method) => {
    const answer = await answerTo(new Request('http://127.0.0.1/mcp', { method }));
    expect(answer.status).toBe(405);
    expect(answer.headers.get('allow')).toBe('POST');
    expect(answer.body.error.data.code).toBe('method_not_allowed');
  });

  test.each(['text/plain', 'application/json-patch+json', 'application/jsonx'])(
    '%s is not JSON',
    async (type) => {
      const answer = await answerTo(post(call('whoami'), { 'content-type': type }));
      expect([answer.status, answer.body.error.data.code]).toEqual([415, 'unsupported_media_type']);
    },
  );

  test.each([
    'https://evil.example',
    'null',
    'https://app.example.com.evil.example',
    'http://app.example.com',
  ])('Origin %s is refused', async (origin) => {
    const answer = await answerTo(legacyPost(call('whoami', { text: 'a' }), { origin }));
    expect([answer.status, answer.body.error.data.code]).toEqual([403, 'origin_refused']);
  });

  test('a page may read answers of its own origin alone, refusals too', async () => {
    const origin = 'https://app.example.com';
    const readable = async (request: Request) => {
      const { headers } = await testEndpoint().endpoint(request, principalFor(acme), soon());
      return [headers.get('access-control-allow-origin'), headers.get('access-control-expose-headers')];
    };
    const exposed = expect.stringContaining('MCP-Protocol-Version');
    const asking = (headers: Record<string, string>) => legacyPost(call('whoami', { text: 'a' }), headers);
    expect(await readable(asking({ origin }))).toEqual([origin, exposed]);
    expect(await readable(asking({ origin, 'content-type': 'text/plain' }))).toEqual([origin, exposed]);
    expect(await readable(asking({}))).toEqual([null, null]);
    expect(await readable(asking({ origin: 'https://evil.example.com' }))).toEqual([null, null]);
  });

  test('an allowed Origin is served', async () => {
    const answer = await answerTo(
      legacyPost(call('whoami', { text: 'a' }), { origin: 'https://app.example.com' }),
    );
    expect(answer.body.result.structuredContent.tenant).toBe(acme);
  });
});

test.each(['x-tenant', 'X-Tenant-Id', 'tenant', 'tenant_id', 'x-amz-tenant-id', 'X-Tenant-Slug'])(
  'a tenant named in the header %s is refused, the own one too',
  async (name) => {
    for (const value of ['globex', acme]) {
      const answer = await answerTo(legacyPost(call('whoami', { text: 'a' }), { [name]: value }));
      expect([answer.status, answer.body.error.data.code]).toEqual([400, 'tenant_named']);
    }
  },
);

describe('headers against body, revision 2026-07-28', () => {
  const args = { name: 'whoami', arguments: { text: 'a' } };
  const cases: [name: string, request: Request, status: number, rpc: number][] = [
    ['another version', modernPost('tools/list', {}, { 'mcp-protocol-version': '2025-11-25' }), 400, -32020],
    ['another method', modernPost('tools/call', args, { 'mcp-method': 'tools/list' }), 400, -32020],
    ['another tool', modernPost('tools/call', args, { 'mcp-name': 'change' }), 400, -32020],
    ['two tools', modernPost('tools/call', args, { 'mcp-name': 'whoami, change' }), 400, -32020],
    ['broken base64', modernPost('tools/call', args, { 'mcp-name': '=?base64?%%%?=' }), 400, -32020],
  ];
  test.each(cases)('%s', async (_, request, status, rpc) => {
    const answer = await answerTo(request);
    expect([answer.status, answer.body.error.code]).toEqual([status, rpc]);
    expect(answer.lines.at(-1)!.fields).toMatchObject({ outcome: 'protocol_refused', tool: null });
  });

  test.each(['mcp-protocol-version', 'mcp-method', 'mcp-name'])('%s is missing', async (header) => {
    const request = modernPost('tools/call', args);
    request.headers.delete(header);
    const answer = await answerTo(request);
    expect([answer.status, answer.body.error.code, answer.body.id]).toEqual([400, -32020, 1]);
  });

  test('the tool named in base64 is the tool named', async () => {
    const encoded = `=?base64?${Buffer.from('whoami').toString('base64')}?=`;
    const answer = await answerTo(modernPost('tools/call', args, { 'mcp-name': encoded }));
    expect(answer.body.result.structuredContent.tenant).toBe(acme);
  });

  test('an unknown version is told which are served', async () => {
    const _meta = {
      'io.modelcontextprotocol/protocolVersion': '2099-01-01',
      'io.modelcontextprotocol/clientCapabilities': {},
    };
    const answer = await answerTo(
      modernPost('tools/list', { _meta }, { 'mcp-protocol-version': '2099-01-01' }),
    );
    expect([answer.status, answer.body.error.code]).toEqual([400, -32022]);
    expect(answer.body.error.data.supported).toContain('2026-07-28');
  });

  test('a body without its envelope', async () => {
    const answer = await answerTo(
      legacyPost({ jsonrpc: '2.0', id: 1, method: 'tools/list' }, { 'mcp-protocol-version': '2026-07-28' }),
    );
    expect([answer.status, answer.body.error.code]).toEqual([400, -32602]);
  });

  test('an unknown method', async () => {
    const answer = await answerTo(modernPost('tools/drop'));
    expect([answer.status, answer.body.error.code]).toEqual([404, -32601]);
  });
});

describe('older revisions', () => {
  test('an unknown version', async () => {
    const answer = await answerTo(legacyPost(call('whoami'), { 'mcp-protocol-version': '1999-01-01' }));
    expect(answer.status).toBe(400);
    expect(answer.body.error.message).toContain('2025-11-25');
  });

  test.each([
    ['tools/call without a name', { method: 'tools/call', params: {} }],
    [
      'tools/call with arguments in a list',
      { method: 'tools/call', params: { name: 'whoami', arguments: [] } },
    ],
    ['tools/list with a cursor that is a number', { method: 'tools/list', params: { cursor: 1 } }],
    ['initialize with nothing', { method: 'initialize', params: {} }],
  ])('%s is wrong parameters, not our fault', async (_, message) => {
    const { body } = await answerTo(legacyPost({ jsonrpc: '2.0', id: 'x', ...message }));
    expect(body).toMatchObject({ id: 'x', error: { code: -32602, data: { code: 'invalid_params' } } });
  });

  test('an unknown method', async () => {
    const { body } = await answerTo(legacyPost({ jsonrpc: '2.0', id: 1, method: 'tools/drop' }));
    expect(body.error.code).toBe(-32601);
  });

  test('notifications and answers are accepted and dropped', async () => {
    for (const message of [{ method: 'notifications/initialized' }, { id: 1, result: {} }]) {
      const answer = await answerTo(legacyPost({ jsonrpc: '2.0', ...message }));
      expect([answer.status, answer.body]).toEqual([202, undefined]);
    }
  });

  test('no session is ever begun', async () => {
    const params = {
      protocolVersion: '2025-11-25',
      capabilities: {},
      clientInfo: { name: 'a', version: '1' },
    };
    const answer = await answerTo(legacyPost({ jsonrpc: '2.0', id: 1, method: 'initialize', params }));
    expect(answer.body.result.protocolVersion).toBe('2025-11-25');
    expect(answer.headers.get('mcp-session-id')).toBeNull();
    expect(answer.headers.get('content-type')).toBe('application/json');
    expect(answer.headers.get('cache-control')).toBe('no-store');
  });
});

describe('what a stateless server has none of', () => {
  test('a page after the only one', async () => {
    const params = { cursor: 'next' };
    for (const request of [
      legacyPost({ jsonrpc: '2.0', id: 1, method: 'tools/list', params }),
      modernPost('tools/list', params),
    ]) {
      const { body } = await answerTo(request);
      expect(body.error.code).toBe(-32602);
    }
  });

  test('a subscription: it is acknowledged without any event, and ends', async () => {
    const { endpoint } = testEndpoint();
    const request = modernPost('subscriptions/listen', { notifications: { toolsListChanged: true } });
    const text = await (await endpoint(request, principalFor(acme), soon())).text();
    const messages = [...text.matchAll(/^data: (.+)$/gm)].map((match) => JSON.parse(match[1]!));
    expect(messages).toHaveLength(2);
    expect(messages[0].params.notifications).toEqual({});
    expect(messages[1]).toMatchObject({ id: 1, result: { resultType: 'complete' } });
  });
});

describe('scopes, revision 2026-07-28', () => {
  test('a tool beyond the token is refused over HTTP, with all scopes it needs', async () => {
    const answer = await answerTo(
      modernPost('tools/call', { name: 'change', arguments: {} }),
      {},
      'things:read',
    );
    expect(answer.status).toBe(403);
    expect(answer.body).toMatchObject({
      id: 1,
      error: { data: { code: 'insufficient_scope', scopes: ['things:read', 'things:write'] } },
    });
    expect(answer.headers.get('www-authenticate')).toMatch(
      /^Bearer error="insufficient_scope", scope="things:read things:write", resource_metadata="https:/,
    );
  });

  test('a header that names a permitted tool opens no other', async () => {
    const request = modernPost('tools/call', { name: 'change', arguments: {} }, { 'mcp-name': 'whoami' });
    const answer = await answerTo(request, {}, 'things:read');
    expect([answer.status, answer.body.error.code]).toEqual([400, -32020]);
  });

  test('lists are private to the caller', async () => {
    for (const method of ['tools/list', 'server/discover']) {
      const { body } = await answerTo(modernPost(method));
      expect(body.result).toMatchObject({ cacheScope: 'private', ttlMs: expect.any(Number) });
    }
  });
});

describe('a tenant that is not served', () => {
  const refusing = (error: unknown) => ({ admit: () => Promise.reject(error) });
  const cases: [error: Error, status: number, code: string][] = [
    [new TenantryError('tenant_not_served', 'secret detail'), 403, 'tenant_not_served'],
    [new TenantryError('tenant_suspended', 'secret detail'), 403, 'tenant_suspended'],
    [new TenantryError('key_revoked', 'secret detail'), 401, 'key_revoked'],
    [new RetryableError('unavailable', 'secret detail', 2), 503, 'unavailable'],
    [new RetryableError('busy', 'secret detail'), 503, 'busy'],
    [new TenantryError('invalid_settings', 'secret detail'), 500, 'internal'],
    [new Error('secret detail'), 500, 'internal'],
  ];
  test.each(cases)('%o', async (error, status, code) => {
    for (const request of [legacyPost(call('whoami', { text: 'a' })), modernPost('tools/list')]) {
      const answer = await answerTo(request, refusing(error));
      expect([answer.status, answer.body.error.data.code, answer.body.id]).toEqual([status, code, 1]);
      expect(JSON.stringify(answer.body)).not.toContain('secret');
      expect(answer.headers.get('retry-after')).toBe(
        status === 503 ? String(answer.body.error.data.retryAfterSeconds) : null,
      );
      expect(answer.lines.at(-1)!.fields).toMatchObject({
        outcome: code,
        tenant: acme,
        strategy: null,
        epoch: null,
      });
    }
  });
});
