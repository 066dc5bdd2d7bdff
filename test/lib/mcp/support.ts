import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { z } from 'zod';
import type { Principal } from '../../../functions/lib/auth/principal.ts';
import type { AdmittedTenant, Log } from '../../../functions/lib/mcp/call.ts';
import { createCursors } from '../../../functions/lib/mcp/cursor.ts';
import { createEndpoint, type Endpoint, type EndpointOptions } from '../../../functions/lib/mcp/endpoint.ts';
import { defineTool, type Tool, ToolError } from '../../../functions/lib/mcp/tool.ts';
import { tenantId } from '../../../functions/lib/tenant/tenant.ts';

export const acme = tenantId('11111111-1111-4111-8111-111111111111');
export const globex = tenantId('22222222-2222-4222-8222-222222222222');

export function principalFor(tenant: string, scopes = 'things:read things:write'): Principal {
  return { tenant, principal: `agent of ${tenant}`, scopes, auth: 'oidc:https://issuer.example' };
}

const cursors = createCursors([Buffer.alloc(32, 7)]);

/** A tenant whose database no tool of these tests touches: what it stores is not this layer's concern. */
export function admitted(principal: Principal): AdmittedTenant {
  const id = tenantId(principal.tenant);
  return {
    id,
    slug: id === acme ? 'acme' : 'globex',
    strategy: 'rls',
    epoch: 1,
    schemaVersion: null,
    async open(tool) {
      const untouched = () => Promise.reject(new Error('these tests have no database'));
      return {
        db: { query: untouched, connect: untouched, transaction: untouched, stats: () => ({ rows: 3 }) },
        cursor: cursors({ tenant: id, auth: principal.auth, principal: principal.principal, tool }),
      };
    },
  };
}

const readOnly = { readOnlyHint: true } as const;

export const whoami = defineTool({
  name: 'whoami',
  title: 'Who am I',
  description: 'Answers with the tenant it runs for and the text it was given, after a while.',
  input: z.object({ text: z.string().max(100), waitMs: z.number().int().min(0).max(5_000).default(0) }),
  output: z.object({ tenant: z.string(), principal: z.string(), text: z.string() }),
  scopes: ['things:read'],
  annotations: readOnly,
  async run({ text, waitMs }, { tenant, principal }) {
    if (waitMs) await new Promise((resolve) => setTimeout(resolve, waitMs));
    return { tenant: tenant.id, principal, text };
  },
});

export const change = defineTool({
  name: 'change',
  title: 'Change',
  description: 'Needs a scope of its own.',
  input: z.object({}),
  output: z.object({ changed: z.boolean() }),
  scopes: ['things:read', 'things:write'],
  annotations: { readOnlyHint: false, destructiveHint: false },
  run: async () => ({ changed: true }),
});

/** A tool that fails in a given way. */
export function failing(name: string, fail: () => unknown): Tool {
  return defineTool({
    name,
    title: name,
    description: 'Fails.',
    input: z.object({}),
    output: z.object({ fine: z.boolean() }),
    scopes: [],
    annotations: readOnly,
    run: async () => fail() as { fine: boolean },
  });
}

const testTools: readonly Tool[] = [
  whoami,
  change,
  failing('refuses', () => {
    throw new ToolError('Choose a colour first.');
  }),
];

export interface LogLine {
  readonly level: string;
  readonly message: string;
  readonly fields: Record<string, unknown>;
}

export function testEndpoint(options: Partial<EndpointOptions> = {}): {
  endpoint: Endpoint;
  lines: LogLine[];
} {
  const lines: LogLine[] = [];
  const log: Log = (level, message, fields) => void lines.push({ level, message, fields });
  const endpoint = createEndpoint({
    tools: testTools,
    info: { name: 'tenantry', title: 'Tenantry', version: '0.0.0' },
    publicUrl: 'https://mcp.example.com/mcp',
    allowedOrigins: ['https://app.example.com'],
    admit: async (principal) => admitted(principal),
    log,
    ...options,
  });
  return { endpoint, lines };
}

export const soon = () => Date.now() + 60_000;

export interface Loopback {
  readonly url: string;
  close(): Promise<void>;
}

/** Serves web-standard requests on 127.0.0.1. */
export async function listen(serve: (request: Request) => Promise<Response>): Promise<Loopback> {
  const server: Server = createServer(async (incoming, outgoing) => {
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) chunks.push(chunk);
    const headers = new Headers();
    for (let index = 0; index < incoming.rawHeaders.length; index += 2) {
      headers.append(incoming.rawHeaders[index]!, incoming.rawHeaders[index + 1]!);
    }
    const method = incoming.method ?? 'GET';
    const body = method === 'POST' ? Buffer.concat(chunks) : null;
    const gone = new AbortController();
    outgoing.on('close', () => gone.abort());
    const response = await serve(
      new Request(`http://127.0.0.1${incoming.url}`, { method, headers, body, signal: gone.signal }),
    );
    outgoing.writeHead(response.status, Object.fromEntries(response.headers));
    if (response.body) Readable.fromWeb(response.body as never).pipe(outgoing);
    else outgoing.end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

const version = '2026-07-28';

/** A raw POST of an older revision. */
export function legacyPost(body: unknown, headers: Record<string, string> = {}): Request {
  return post(body, {
    accept: 'application/json, text/event-stream',
    'mcp-protocol-version': '2025-11-25',
    ...headers,
  });
}

/** A raw, well-formed POST of revision 2026-07-28; `headers` override what belongs to the body. */
export function modernPost(
  method: string,
  params: Record<string, unknown> = {},
  headers: Record<string, string> = {},
): Request {
  const _meta = {
    'io.modelcontextprotocol/protocolVersion': version,
    'io.modelcontextprotocol/clientCapabilities': {},
  };
  const named = typeof params.name === 'string' ? { 'mcp-name': params.name } : {};
  return post(
    { jsonrpc: '2.0', id: 1, method, params: { _meta, ...params } },
    {
      accept: 'application/json',
      'mcp-protocol-version': version,
      'mcp-method': method,
      ...named,
      ...headers,
    },
  );
}

export function post(body: unknown, headers: Record<string, string> = {}): Request {
  const raw = typeof body === 'string' || body instanceof Uint8Array;
  return new Request('http://127.0.0.1/mcp', {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: raw ? (body as string) : JSON.stringify(body),
  });
}

export const call = (name: string, args?: unknown, id: number | string = 1) => ({
  jsonrpc: '2.0',
  id,
  method: 'tools/call',
  params: { name, ...(args !== undefined && { arguments: args }) },
});

/** One request to a fresh endpoint, its answer parsed. */
export async function answerTo(request: Request, options?: Partial<EndpointOptions>, scopes?: string) {
  const { endpoint, lines } = testEndpoint(options);
  const response = await endpoint(request, principalFor(acme, scopes), soon());
  const text = await response.text();
  return {
    status: response.status,
    headers: response.headers,
    body: text ? JSON.parse(text) : undefined,
    lines,
  };
}
