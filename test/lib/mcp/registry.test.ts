import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { createRegistry } from '../../../functions/lib/mcp/registry.ts';
import {
  acme,
  admitted,
  call,
  failing,
  legacyPost,
  modernPost,
  principalFor,
  soon,
  testEndpoint,
  whoami,
} from './support.ts';

describe('the registry', () => {
  test('refuses two tools of one name, a name agents cannot call, and a schema without JSON', () => {
    const tool = failing('once', () => ({}));
    expect(() => createRegistry([tool, tool])).toThrow(/Two tools are named "once"/);
    expect(() => createRegistry([failing('Not Allowed', () => ({}))])).toThrow(/a-z/);
    const dated = { ...tool, output: z.object({ when: z.date() }) };
    expect(() => createRegistry([dated])).toThrow(/Tool "once": its output can't be described/);
    const mirrored = {
      ...tool,
      input: z.object({ region: z.string().meta({ 'x-mcp-header': 'Region' }) }),
    };
    expect(() => createRegistry([mirrored])).toThrow(/x-mcp-header/);
  });

  test.each(['things:read things:write', 'things:read,things:write', '', 'größe', 'a"b', 'a\\b'])(
    'refuses a scope that nobody can be granted: %j',
    (scope) => {
      const tool = { ...failing('once', () => ({})), scopes: ['things:read', scope] };
      expect(() => createRegistry([tool])).toThrow(`Tool "once": nobody can be granted the scope "${scope}"`);
    },
  );

  test('computes a list once per set of scopes that matter', () => {
    const registry = createRegistry([whoami, failing('open', () => ({}))]);
    const first = registry.listFor(new Set(['things:read', 'other']), null);
    expect(first).toBe(registry.listFor(new Set(['more', 'things:read']), null));
    expect(first.tools.map(({ name }) => name)).toEqual(['whoami', 'open']);
    expect(registry.listFor(new Set(['other']), null).tools.map(({ name }) => name)).toEqual(['open']);
  });
});

test('a tool shows itself only to a tenant whose schema it works with, and reads as unknown to others', async () => {
  const early = { ...failing('early', () => ({})), schema: { to: '0003' } };
  const late = { ...failing('late', () => ({})), schema: { from: '0004' } };
  const always = failing('always', () => ({}));
  const at = (schemaVersion: string | null) =>
    testEndpoint({
      tools: [early, late, always],
      admit: async (principal) => ({ ...admitted(principal), schemaVersion }),
    }).endpoint;
  const names = async (version: string | null, request: Request) => {
    const { result } = (await (await at(version)(request, principalFor(acme), soon())).json()) as {
      result: { tools: { name: string }[] };
    };
    return result.tools.map(({ name }) => name);
  };
  const list = { jsonrpc: '2.0', id: 1, method: 'tools/list' };
  for (const listed of [() => legacyPost(list), () => modernPost('tools/list')]) {
    expect(await names('0003-x', listed())).toEqual(['early', 'always']);
    expect(await names('0004-y', listed())).toEqual(['late', 'always']);
    expect(await names(null, listed())).toEqual(['always']);
  }
  const called = await at('0003-x')(legacyPost(call('late')), principalFor(acme), soon());
  expect(await called.json()).toMatchObject({
    result: { isError: true, _meta: { 'tenantry/code': 'unknown_tool' } },
  });
  expect(() => createRegistry([{ ...always, schema: { from: '4' } }])).toThrow(/four digits/);
});

test('a list stands where it belongs, whatever the client calls its request', async () => {
  const { endpoint } = testEndpoint({ tools: [whoami] });
  const id = 'ü "tools":[] \\"tools":[]';
  const asked = legacyPost({ jsonrpc: '2.0', id, method: 'tools/list' });
  expect(await (await endpoint(asked, principalFor(acme), soon())).json()).toEqual({
    jsonrpc: '2.0',
    id,
    result: { tools: [expect.objectContaining({ name: 'whoami' })] },
  });
});
