import { randomUUID } from 'node:crypto';
import { Writable } from 'node:stream';
import type { APIGatewayProxyEvent, Context } from 'aws-lambda';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import type { Principal } from '../../functions/lib/auth/principal.ts';
import { resume, suspend } from '../../functions/lib/lifecycle/suspend.ts';
import { startWorld, strategies, type TestTenant, type World } from '../support/world.ts';

/** The function as it is deployed, over real databases; only the adopting team's tools are exchanged for the tests' own. */
vi.mock('../../functions/mcp/tools/index.ts', () => import('./note-tools.ts'));

type Handler = (event: APIGatewayProxyEvent, stream: Writable, context: Context) => Promise<void>;

let world: World;
let handler: Handler;
let logged: Record<string, unknown>[] = [];

beforeAll(async () => {
  world = await startWorld();
  const { catalog, publicUrl, region } = world.settings;
  Object.assign(process.env, {
    PUBLIC_URL: publicUrl,
    CATALOG_HOST: catalog.host,
    CATALOG_PORT: String(catalog.port),
    CREDENTIALS: 'secret',
    DATABASE_TLS: 'off',
    MAX_CONNECTIONS: '10',
    AWS_REGION: region,
    // The logger then writes to the console that a test can listen to.
    POWERTOOLS_DEV: 'true',
  });
  vi.stubGlobal('awslambda', {
    streamifyResponse: (given: Handler) => given,
    HttpResponseStream: { from: (stream: Answer, head: object) => Object.assign(stream, { head }) },
  });
  for (const method of ['log', 'info', 'warn', 'error'] as const) {
    vi.spyOn(console, method).mockImplementation((line: string) => void logged.push(JSON.parse(line)));
  }
  ({ handler } = (await import('../../functions/mcp/handler.ts')) as unknown as { handler: Handler });
});
afterAll(() => world?.close());
afterEach(() => {
  logged = [];
});

class Answer extends Writable {
  head = { statusCode: 0, headers: {} as Record<string, string> };
  text = '';
  override _write(chunk: Buffer, _: string, done: () => void) {
    this.text += chunk.toString();
    done();
  }
}

async function send(principal: Principal, method: string, params: object, remainingMs = 10_000) {
  const answer = new Answer();
  const event = {
    httpMethod: 'POST',
    path: '/mcp',
    multiValueHeaders: {
      'content-type': ['application/json'],
      accept: ['application/json, text/event-stream'],
    },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }),
    requestContext: { requestId: randomUUID(), authorizer: { ...principal } },
  } as unknown as APIGatewayProxyEvent;
  await handler(event, answer, { getRemainingTimeInMillis: () => remainingMs } as Context);
  return { status: answer.head.statusCode, ...JSON.parse(answer.text) };
}

const scoped = (tenant: TestTenant, scopes = 'notes:read notes:write') => ({ ...tenant.principal, scopes });

async function call(tenant: TestTenant, name: string, args: object = {}, remainingMs?: number) {
  const { result } = await send(scoped(tenant), 'tools/call', { name, arguments: args }, remainingMs);
  return result;
}
const codeOf = (result: { _meta?: Record<string, unknown> }) => result._meta?.['tenantry/code'];

describe.each(strategies)('%s', (strategy) => {
  test('a tenant writes and reads its own, and its neighbour sees nothing of it', async () => {
    const { a, b } = world.tenants[strategy];
    const body = `secret of a ${randomUUID()}`;
    expect((await call(a, 'add_note', { body })).structuredContent).toEqual({ added: true });
    expect((await call(a, 'list_notes')).structuredContent.notes).toContain(body);
    expect((await call(b, 'list_notes')).structuredContent.notes).not.toContain(body);
  });

  test('a call leaves one line, with these fields and no others', async () => {
    const { a } = world.tenants[strategy];
    const body = `unlogged ${randomUUID()}`;
    await call(a, 'add_note', { body });
    await call(a, 'list_notes', { limit: 1 });
    const lines = logged.filter(({ message }) => message === 'call');
    expect(lines.map(({ outcome, rows }) => [outcome, rows])).toEqual([
      ['ok', 1],
      ['ok', 1],
    ]);
    const { level, message, timestamp, service, sampling_rate, xray_trace_id, ...fields } = lines[0]!;
    expect(fields).toEqual({
      requestId: expect.any(String),
      tenant: a.id,
      principal: a.principal.principal,
      tool: 'add_note',
      strategy,
      epoch: a.home.epoch,
      ms: expect.any(Number),
      rows: 1,
      outcome: 'ok',
    });
    expect(JSON.stringify(logged)).not.toMatch(/unlogged|insert into/);
  });

  test('a cursor is nothing to the neighbour', async () => {
    const { a, b } = world.tenants[strategy];
    await call(a, 'add_note', { body: `first ${randomUUID()}` });
    const { next } = (await call(a, 'list_notes', { limit: 1 })).structuredContent;
    expect((await call(a, 'list_notes', { after: next })).isError).toBeUndefined();
    const foreign = await call(b, 'list_notes', { after: next });
    expect([foreign.isError, codeOf(foreign)]).toEqual([true, 'invalid_cursor']);
  });

  test('a write in a read-only tool, and a broken statement, are the tool’s fault and say nothing', async () => {
    const { a } = world.tenants[strategy];
    for (const statement of ["insert into notes (body) values ('x')", 'select * from no_such_table']) {
      const result = await call(a, 'run_statement', { statement });
      expect([result.isError, codeOf(result)]).toEqual([true, 'internal']);
      expect(result.content[0].text).not.toMatch(/read-only|no_such_table|relation/);
    }
    expect(JSON.stringify(logged)).not.toMatch(/no_such_table/);
  });

  test('a statement that runs too long is ended, one that returns too much is refused', async () => {
    const { a } = world.tenants[strategy];
    const slow = await call(a, 'run_statement', { statement: 'select pg_sleep(20)' }, 2_000);
    expect(codeOf(slow)).toBe('deadline_exceeded');
    const big = await call(a, 'run_statement', { statement: 'select generate_series(1, 5000)' });
    expect(codeOf(big)).toBe('result_too_large');
    expect((await call(a, 'list_notes')).isError).toBeUndefined();
  });

  test('a suspended tenant is refused, and served again when it is resumed', async () => {
    const tenant = await world.addTenant(strategy);
    expect((await call(tenant, 'list_notes')).structuredContent.notes).toEqual([]);
    expect(await suspend(world.plane, tenant.id)).toBe('done');
    // The route in memory is older than the suspension: the home itself refuses, in the catalog's words.
    const answer = await send(scoped(tenant), 'tools/call', { name: 'list_notes', arguments: {} });
    expect([answer.status, answer.error.data.code]).toEqual([403, 'tenant_suspended']);
    expect(await resume(world.plane, tenant.id)).toBe('done');
    expect((await call(tenant, 'list_notes')).structuredContent.notes).toEqual([]);
  });
});

test('interleaved calls of all tenants get their own answers', async () => {
  const tenants = strategies.flatMap((strategy) => Object.values(world.tenants[strategy]));
  const marked = await Promise.all(
    tenants.map(async (tenant) => {
      const marker = `marker ${tenant.slug}`;
      await call(tenant, 'add_note', { body: marker });
      return { tenant, marker };
    }),
  );
  const calls = Array.from({ length: 100 }, async (_, index) => {
    const { tenant, marker } = marked[index % marked.length]!;
    const { structuredContent } = await call(tenant, 'list_notes');
    const markers = structuredContent.notes.filter((note: string) => note.startsWith('marker '));
    expect(markers).toEqual([marker]);
  });
  expect(await Promise.all(calls)).toHaveLength(100);
});

test('unknown tenants are refused in one sentence, whatever they ask', async () => {
  const { a } = world.tenants.rls;
  const claims = [randomUUID(), 'globex', a.slug, a.id.toUpperCase(), "' or true --"];
  const answers = await Promise.all(claims.map((tenant) => send({ ...scoped(a), tenant }, 'tools/list', {})));
  for (const answer of answers) {
    expect(answer).toEqual({ ...answers[0], status: 403 });
    expect(answer.error.data.code).toBe('tenant_not_served');
  }
});

test('a tool beyond the scopes is neither listed nor called', async () => {
  const reader = { ...world.tenants.rls.a.principal, scopes: 'notes:read' };
  const { result } = await send(reader, 'tools/list', {});
  expect(result.tools.map(({ name }: { name: string }) => name)).toEqual(['list_notes', 'run_statement']);
  const called = await send(reader, 'tools/call', { name: 'add_note', arguments: { body: 'x' } });
  expect(codeOf(called.result)).toBe('unknown_tool');
});
