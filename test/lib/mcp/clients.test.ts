import {
  Client as ModernClient,
  StreamableHTTPClientTransport as ModernTransport,
} from '@modelcontextprotocol/client';
import { Client as LegacyClient } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as LegacyTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { afterEach, describe, expect, test } from 'vitest';
import { acme, type LogLine, type Loopback, listen, principalFor, soon, testEndpoint } from './support.ts';

const info = { name: 'test', version: '1' };

interface AnyClient {
  listTools(): Promise<{ tools: { name: string; inputSchema: unknown; outputSchema?: unknown }[] }>;
  callTool(params: { name: string; arguments?: Record<string, unknown> }): Promise<Record<string, unknown>>;
  ping?(): Promise<unknown>;
  close(): Promise<void>;
}

const families = {
  'sdk 1.x': async (url: string): Promise<AnyClient> => {
    const client = new LegacyClient(info);
    await client.connect(new LegacyTransport(new URL(url)) as never);
    return client as unknown as AnyClient;
  },
  'client 2.x, older revision': async (url: string): Promise<AnyClient> => {
    const client = new ModernClient(info);
    await client.connect(new ModernTransport(new URL(url)));
    return client as unknown as AnyClient;
  },
  'client 2.x, 2026-07-28': async (url: string): Promise<AnyClient> => {
    const client = new ModernClient(info, { versionNegotiation: { mode: { pin: '2026-07-28' } } });
    await client.connect(new ModernTransport(new URL(url)));
    return client as unknown as AnyClient;
  },
};

describe.each(Object.entries(families))('%s', (name, connect) => {
  let server: Loopback | undefined;
  let client: AnyClient | undefined;
  let lines: LogLine[] = [];

  async function start(scopes?: string): Promise<AnyClient> {
    const made = testEndpoint();
    lines = made.lines;
    server = await listen((request) => made.endpoint(request, principalFor(acme, scopes), soon()));
    client = await connect(server.url);
    return client;
  }

  afterEach(async () => {
    await client?.close();
    await server?.close();
  });

  test('lists tools with their schemas', async () => {
    const { tools } = await (await start()).listTools();
    expect(tools.map((tool) => tool.name)).toEqual(['whoami', 'change', 'refuses']);
    expect(tools[0]).toMatchObject({
      title: 'Who am I',
      annotations: { readOnlyHint: true },
      inputSchema: { type: 'object', required: ['text'], additionalProperties: false },
      outputSchema: { type: 'object', required: ['tenant', 'principal', 'text'] },
    });
  });

  test('calls a tool and gets structured content, once more as text', async () => {
    const result = await (await start()).callTool({ name: 'whoami', arguments: { text: 'hello' } });
    const expected = { tenant: acme, principal: `agent of ${acme}`, text: 'hello' };
    expect(result.structuredContent).toEqual(expected);
    expect(JSON.parse((result.content as { text: string }[])[0]!.text)).toEqual(expected);
    expect(result.isError).not.toBe(true);
    const calls = lines.filter((line) => line.message === 'call');
    expect(calls).toHaveLength(1);
    expect(calls[0]!.fields).toEqual({
      requestId: expect.any(String),
      tenant: acme,
      principal: `agent of ${acme}`,
      tool: 'whoami',
      strategy: 'rls',
      epoch: 1,
      ms: expect.any(Number),
      rows: 3,
      outcome: 'ok',
    });
  });

  test('bad arguments tell the model what to fix', async () => {
    const result = await (await start()).callTool({
      name: 'whoami',
      arguments: { text: 5, tenant: 'globex' },
    });
    expect(result.isError).toBe(true);
    const { text } = (result.content as { text: string }[])[0]!;
    expect(text).toMatch(/text: .*expected string/);
    expect(text).toMatch(/Unrecognized key: "tenant"/);
    expect(lines.at(-1)!.fields).toMatchObject({ tool: 'whoami', outcome: 'bad_arguments' });
  });

  test('what a tool says in a ToolError reaches the model', async () => {
    const result = await (await start()).callTool({ name: 'refuses', arguments: {} });
    expect(result).toMatchObject({ isError: true, content: [{ text: 'Choose a colour first.' }] });
  });

  test('an unknown tool is a wrong parameter, and for older clients a tool’s error', async () => {
    const called = (await start()).callTool({ name: 'drop_tables', arguments: {} });
    if (name.endsWith('2026-07-28'))
      await expect(called).rejects.toMatchObject({ code: -32602, data: { code: 'unknown_tool' } });
    else expect(await called).toMatchObject({ isError: true, _meta: { 'tenantry/code': 'unknown_tool' } });
    expect(lines.at(-1)!.fields).toMatchObject({ tool: null, outcome: 'unknown_tool' });
  });

  test('a tool beyond the scopes', async () => {
    const reader = await start('things:read');
    const { tools } = await reader.listTools();
    if (name.endsWith('2026-07-28')) {
      // This client can ask for the scope it lacks, so it sees the tool and is refused over HTTP.
      expect(tools.map((tool) => tool.name)).toContain('change');
      await expect(reader.callTool({ name: 'change', arguments: {} })).rejects.toThrow();
    } else {
      expect(tools.map((tool) => tool.name)).toEqual(['whoami', 'refuses']);
      expect(await reader.callTool({ name: 'change', arguments: {} })).toMatchObject({
        isError: true,
        _meta: { 'tenantry/code': 'unknown_tool' },
      });
    }
    expect(lines.at(-1)!.fields).toMatchObject({ tool: 'change', outcome: 'insufficient_scope' });
  });
});
