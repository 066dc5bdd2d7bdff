import { Writable } from 'node:stream';
import type { APIGatewayProxyEvent, Context } from 'aws-lambda';
import { z } from 'zod';
import type { AdmittedTenant } from '../functions/lib/mcp/call.ts';
import { createEndpoint } from '../functions/lib/mcp/endpoint.ts';
import { createHandler } from '../functions/lib/mcp/lambda-adapter.ts';
import { defineTool, type Tool } from '../functions/lib/mcp/tool.ts';
import { tenantId } from '../functions/lib/tenant/tenant.ts';

/**
 * Time of the MCP function's own code for one warm request, without a query and without the network: from the gateway's
 * event to the end of the answer's stream. In one process, one request at a time: so on one core. Families and methods
 * take turns in small batches, so that what else the machine does hits all of them.
 */
const batches = 100;
const batchSize = 20;
const toolCount = 100;

const targets = { 'tools/call': 1.5, 'tools/list': 1 } as const;
type Method = keyof typeof targets;

export interface HandlerFigure {
  readonly family: 'legacy' | 'modern';
  readonly method: Method;
  readonly medianMs: number;
  readonly p95Ms: number;
  readonly targetMs: number;
}

export async function run(report: (line: string) => void = console.log): Promise<HandlerFigure[]> {
  installLambdaGlobal();
  const endpoint = createEndpoint({
    tools: Array.from({ length: toolCount }, (_, index) => toolNumber(index)),
    info: { name: 'bench', title: 'Bench', version: '0' },
    publicUrl: 'https://mcp.example.com/mcp',
    allowedOrigins: [],
    admit: async () => tenant,
    log: () => {},
  });
  const handler = createHandler(endpoint, () => {});

  const cases = (['legacy', 'modern'] as const).flatMap((family) =>
    (['tools/call', 'tools/list'] as const).map((method) => ({ family, method, times: [] as number[] })),
  );
  for (let batch = -batches / 2; batch < batches; batch++) {
    for (const { family, method, times } of cases) {
      for (let index = 0; index < batchSize; index++) {
        const event = eventOf(family, method);
        const sink = new Sink();
        const started = performance.now();
        await handler(event, sink as never, context);
        const took = performance.now() - started;
        check(sink, method);
        // The batches below zero let the code be compiled.
        if (batch >= 0) times.push(took);
      }
    }
  }

  const figures = cases.map(({ family, method, times }) => {
    times.sort((a, b) => a - b);
    const at = (share: number) => times[Math.floor(times.length * share)]!;
    return { family, method, medianMs: at(0.5), p95Ms: at(0.95), targetMs: targets[method] };
  });
  report(`MCP function without its query, ${toolCount} tools, ${batches * batchSize} requests each, ms:`);
  for (const { family, method, medianMs, p95Ms, targetMs } of figures) {
    report(
      `  ${family.padEnd(7)} ${method}  median ${medianMs.toFixed(2)}  p95 ${p95Ms.toFixed(2)}  (target: median at most ${targetMs})`,
    );
  }
  return figures;
}

function toolNumber(index: number): Tool {
  return defineTool({
    name: `tool_${index}`,
    title: `Tool ${index}`,
    description:
      'Finds items by text in their name or SKU. Answers the best matches with their stock, best first.',
    input: z.object({
      q: z.string().min(1).max(200).describe('Text to look for.'),
      limit: z.int().min(1).max(50).default(10).describe('How many items at most.'),
      warehouse: z.enum(['north', 'south']).optional(),
    }),
    output: z.object({
      items: z.array(z.object({ id: z.string(), sku: z.string(), name: z.string(), quantity: z.int() })),
    }),
    scopes: [`scope:${index % 3}`],
    annotations: { readOnlyHint: true },
    run: async ({ limit }) => ({
      items: Array.from({ length: limit }, (_, row) => ({
        id: `00000000-0000-4000-8000-${String(row).padStart(12, '0')}`,
        sku: `SKU-${row}`,
        name: `Item number ${row}`,
        quantity: row,
      })),
    }),
  });
}

const unused = () => {
  throw new TypeError('This benchmark has no database.');
};
const tenant: AdmittedTenant = {
  id: tenantId('11111111-1111-4111-8111-111111111111'),
  slug: 'bench',
  strategy: 'rls',
  epoch: 1,
  schemaVersion: null,
  open: async () => ({
    db: { query: unused, connect: unused, transaction: unused, stats: () => ({ rows: 0 }) },
    cursor: { seal: unused, open: unused },
  }),
};

const context = { getRemainingTimeInMillis: () => 29_000 } as Context;

function eventOf(family: HandlerFigure['family'], method: Method): APIGatewayProxyEvent {
  const modern = family === 'modern';
  const named = method === 'tools/call' ? { name: 'tool_7', arguments: { q: 'bolt', limit: 10 } } : {};
  const _meta = {
    'io.modelcontextprotocol/protocolVersion': '2026-07-28',
    'io.modelcontextprotocol/clientCapabilities': {},
    'io.modelcontextprotocol/clientInfo': { name: 'bench', version: '1' },
  };
  const headers = {
    'Content-Type': 'application/json',
    Accept: 'application/json, text/event-stream',
    Authorization: 'Bearer checked-by-the-authorizer',
    'User-Agent': 'bench',
    'X-Forwarded-For': '192.0.2.1',
    'MCP-Protocol-Version': modern ? '2026-07-28' : '2025-11-25',
    ...(modern && { 'Mcp-Method': method, ...('name' in named && { 'Mcp-Name': named.name }) }),
  };
  return {
    httpMethod: 'POST',
    path: '/mcp',
    headers,
    multiValueHeaders: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, [value]])),
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params: { ...named, ...(modern && { _meta }) } }),
    isBase64Encoded: false,
    requestContext: {
      requestId: 'bench',
      authorizer: {
        tenant: 'bench',
        principal: 'agent',
        scopes: 'scope:0 scope:1 scope:2',
        auth: 'oidc:bench',
      },
    },
  } as unknown as APIGatewayProxyEvent;
}

/** Lambda's response stream, kept in memory. */
class Sink extends Writable {
  status = 0;
  readonly chunks: Buffer[] = [];
  override _write(chunk: Buffer, _: string, done: () => void) {
    this.chunks.push(chunk);
    done();
  }
}

function installLambdaGlobal(): void {
  const from = (sink: Sink, { statusCode }: { statusCode: number }) =>
    Object.assign(sink, { status: statusCode });
  Object.assign(globalThis, { awslambda: { HttpResponseStream: { from } } });
}

/** A fast wrong answer must not count. */
function check(sink: Sink, method: Method): void {
  const { result } = JSON.parse(Buffer.concat(sink.chunks).toString());
  const right =
    method === 'tools/list'
      ? result?.tools.length === toolCount
      : result?.structuredContent.items.length === 10;
  if (sink.status !== 200 || !right)
    throw new Error(`${method} answered wrongly: the figures would mean nothing.`);
}

if (import.meta.main) await run();
