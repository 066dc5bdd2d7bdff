import fc from 'fast-check';
import { expect, test } from 'vitest';
import { acme, call, legacyPost, modernPost, principalFor, soon, testEndpoint } from './support.ts';

/** Requests that are served, to begin with. */
const initialize = {
  protocolVersion: '2025-11-25',
  capabilities: {},
  clientInfo: { name: 'a', version: '1' },
};
const subscription = { notifications: { toolsListChanged: true } };
const valid = [
  legacyPost(call('whoami', { text: 'a' })),
  legacyPost({ jsonrpc: '2.0', id: 1, method: 'initialize', params: initialize }),
  legacyPost({ jsonrpc: '2.0', id: 1, method: 'tools/list', params: {} }),
  legacyPost({ jsonrpc: '2.0', id: 1, method: 'ping', params: {} }),
  legacyPost({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 1 } }),
  modernPost('tools/call', { name: 'whoami', arguments: { text: 'a' } }),
  modernPost('tools/list'),
  modernPost('server/discover'),
  modernPost('subscriptions/listen', subscription),
];

const json = fc.jsonValue({ maxDepth: 3 });
const change = fc.tuple(
  fc.constantFrom(
    ['id'],
    ['method'],
    ['params'],
    ['result'],
    ['params', 'name'],
    ['params', 'arguments'],
    ['params', 'arguments', 'text'],
    ['params', 'cursor'],
    ['params', 'task'],
    ['params', 'inputResponses'],
    ['params', 'requestState'],
    ['params', 'notifications'],
    ['params', 'capabilities'],
    ['params', 'protocolVersion'],
    ['params', '_meta'],
    ['params', '_meta', 'progressToken'],
    ['params', '_meta', 'io.modelcontextprotocol/protocolVersion'],
    ['params', '_meta', 'io.modelcontextprotocol/clientCapabilities'],
    ['params', '_meta', 'io.modelcontextprotocol/related-task'],
  ),
  fc.oneof(
    json,
    fc.string({ unit: 'binary' }),
    fc.constantFrom(
      'tools/call',
      'tools/list',
      'tasks/get',
      'change',
      'refuses',
      '__proto__',
      'toString',
      '2026-07-28',
    ),
  ),
);
const header = fc.tuple(
  fc.constantFrom('accept', 'mcp-protocol-version', 'mcp-method', 'mcp-name'),
  fc.constantFrom(
    '2025-06-18',
    '2026-07-28',
    '2027-01-01',
    'tools/list',
    'whoami',
    '=?base64?d2hvYW1p?=',
    'application/json',
    '',
  ),
);

test('however a request is changed, the answer is JSON-RPC or nothing, and never an internal error', async () => {
  const { endpoint, lines } = testEndpoint();
  const sources = await Promise.all(
    valid.map(async (one) => ({ headers: one.headers, message: await one.clone().json() })),
  );
  const request = fc.record({
    source: fc.constantFrom(...sources),
    changes: fc.array(change, { maxLength: 2 }),
    headers: fc.array(header, { maxLength: 1 }),
  });
  await fc.assert(
    fc.asyncProperty(request, async ({ source, changes, headers }) => {
      const message = structuredClone(source.message) as Record<string, unknown>;
      for (const [path, value] of changes) set(message, path, value);
      const sent = new Headers(source.headers);
      for (const [name, value] of headers) sent.set(name, value);
      await expectRpc(await send(JSON.stringify(message), sent));
    }),
    { numRuns: 1_500 },
  );
  // What chance seldom makes.
  for (const seldom of [legacyPost(call('nobody', {})), legacyPost(call('whoami', { text: 1 }))])
    await expectRpc(await send(await seldom.text(), seldom.headers));
  expect(lines.filter(({ level }) => level === 'error')).toEqual([]);
  // The property would hold for an endpoint that refuses everything.
  const outcomes = new Set(lines.map(({ fields }) => fields.outcome));
  expect([...outcomes]).toEqual(
    expect.arrayContaining(['ok', 'bad_arguments', 'unknown_tool', 'protocol_refused', 'invalid_message']),
  );

  function send(body: string, headers: Headers): Promise<Response> {
    return endpoint(
      new Request('http://127.0.0.1/mcp', { method: 'POST', headers, body }),
      principalFor(acme),
      soon(),
    );
  }
});

test('any other body is answered 400, as JSON-RPC', async () => {
  const { endpoint, lines } = testEndpoint();
  const body = fc.oneof(
    json.map((value) => JSON.stringify(value)),
    fc.string({ unit: 'binary' }),
    fc.uint8Array(),
  );
  await fc.assert(
    fc.asyncProperty(body, async (sent) => {
      const headers = { 'content-type': 'application/json' };
      const request = new Request('http://127.0.0.1/mcp', { method: 'POST', headers, body: sent as string });
      const response = await endpoint(request, principalFor(acme), soon());
      expect(response.status).toBe(400);
      await expectRpc(response);
    }),
  );
  expect(lines.filter(({ level }) => level === 'error')).toEqual([]);
});

async function expectRpc(response: Response): Promise<void> {
  expect(response.status).not.toBe(500);
  for (const answer of messagesOf(response, await response.text())) {
    expect(answer.jsonrpc).toBe('2.0');
    if (typeof answer.method === 'string') continue;
    expect(['string', 'number', 'object']).toContain(typeof answer.id);
    if (answer.result === undefined) {
      expect(answer.error).toMatchObject({ code: expect.any(Number), message: expect.any(String) });
      expect(answer.error).not.toMatchObject({ code: -32603 });
    } else {
      expect(answer.result).toBeTypeOf('object');
    }
  }
}

function messagesOf(response: Response, text: string): Record<string, unknown>[] {
  if (text === '') return [];
  if (!response.headers.get('content-type')?.startsWith('text/event-stream')) return [JSON.parse(text)];
  return [...text.matchAll(/^data: (.+)$/gm)].map((match) => JSON.parse(match[1]!));
}

function set(target: Record<string, unknown>, [name, ...rest]: readonly string[], value: unknown): void {
  if (rest.length === 0) target[name!] = value;
  else {
    const inner = target[name!];
    if (typeof inner === 'object' && inner !== null) set(inner as Record<string, unknown>, rest, value);
  }
}
