import { DrizzleQueryError } from 'drizzle-orm/errors';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import {
  QueryError,
  ResultTooLargeError,
  RetryableError,
  TenantryError,
} from '../../../functions/lib/errors.ts';
import { defineTool, type Tool } from '../../../functions/lib/mcp/tool.ts';
import {
  acme,
  admitted,
  call,
  failing,
  globex,
  legacyPost,
  modernPost,
  principalFor,
  soon,
  testEndpoint,
  whoami,
} from './support.ts';

async function callOne(
  tool: Tool,
  args: unknown = {},
  options: { deadline?: number; tenant?: string; signal?: AbortSignal } = {},
) {
  const { endpoint, lines } = testEndpoint({ tools: [tool] });
  const posted = legacyPost(call(tool.name, args));
  const request = options.signal ? new Request(posted, { signal: options.signal }) : posted;
  const response = await endpoint(request, principalFor(options.tenant ?? acme), options.deadline ?? soon());
  const { result } = (await response.json()) as { result: Record<string, unknown> };
  const { text } = (result.content as { text: string }[])[0]!;
  return { result, text, line: lines.at(-1)!.fields, lines };
}

const postgres = Object.assign(new Error('duplicate key value (email)=(ann@acme.example)'), {
  detail: 'SECRET detail',
  hint: 'SECRET hint',
});

describe('how a tool fails', () => {
  const cases: [name: string, fail: () => unknown, outcome: string, text: RegExp][] = [
    ['unique', () => new QueryError('23505', 'items_sku_key', postgres), 'query_failed', /already/],
    ['foreign key', () => new QueryError('23503', undefined, postgres), 'query_failed', /does not exist/],
    ['check', () => new QueryError('23514', undefined, postgres), 'query_failed', /rule/],
    ['bad value', () => new QueryError('22P02', undefined, postgres), 'query_failed', /wrong form/],
    ['row security', () => new QueryError('42501', undefined, postgres), 'query_failed', /no such entry/],
    ['missing table', () => new QueryError('42P01', undefined, postgres), 'internal', /no fault of yours/],
    ['timeout', () => new QueryError('57014', undefined, postgres), 'deadline_exceeded', /too long/],
    ['deadlock', () => new QueryError('40P01', undefined, postgres), 'busy', /again in 1 second\./],
    ['too many connections', () => new QueryError('53300', undefined, postgres), 'busy', /again/],
    ['busy', () => new RetryableError('busy', 'SECRET', 3), 'busy', /again in 3 seconds/],
    [
      'unavailable',
      () => new RetryableError('unavailable', 'SECRET', 2),
      'unavailable',
      /again in 2 seconds/,
    ],
    [
      'lost commit',
      () => new TenantryError('outcome_unknown', 'SECRET'),
      'outcome_unknown',
      /may or may not/,
    ],
    ['too much', () => new TenantryError('result_too_large', 'SECRET'), 'result_too_large', /Ask for less/],
    [
      'too much, but done',
      () => new ResultTooLargeError('SECRET', true),
      'result_too_large',
      /Do not repeat/,
    ],
    [
      'refused statement',
      () => new TenantryError('statement_refused', 'SECRET'),
      'internal',
      /no fault of yours/,
    ],
    ['a bug', () => new TypeError('SECRET undefined is not a function'), 'internal', /no fault of yours/],
    ['not even an error', () => 'SECRET', 'internal', /no fault of yours/],
  ];

  test.each(cases)('%s', async (_, fail, outcome, expected) => {
    const told = fail();
    // Its message quotes the values.
    const wrapped = (cause: TenantryError) => new DrizzleQueryError('select $1', ['ann@acme.example'], cause);
    for (const thrown of told instanceof TenantryError ? [told, wrapped(told)] : [told]) {
      const { result, text, line, lines } = await callOne(
        failing('fails', () => {
          throw thrown;
        }),
      );
      expect(result).toMatchObject({ isError: true, _meta: { 'tenantry/code': outcome } });
      expect(text).toMatch(expected);
      expect(JSON.stringify(result)).not.toMatch(/SECRET|acme\.example|SQLSTATE|\bat /);
      expect(line).toMatchObject({ tool: 'fails', outcome });
      // Only what an operator has to look at is a fault; and not even there what PostgreSQL quoted.
      const faults = lines.filter(({ level }) => level === 'error');
      expect(faults).toHaveLength(outcome === 'internal' ? 1 : 0);
      expect(JSON.stringify(faults)).not.toMatch(/SECRET (detail|hint)|acme\.example/);
    }
  });

  test('a value that is missing is told by its column, to whoever operates it', async () => {
    const { result, lines } = await callOne(
      failing('fails', () => {
        throw new QueryError('23502', undefined, { ...postgres, table: 'items', column: 'sku' });
      }),
    );
    expect(lines.find(({ level }) => level === 'warn')?.fields).toMatchObject({ column: 'items.sku' });
    expect(JSON.stringify(result)).not.toMatch(/sku/);
    expect(JSON.stringify(lines)).not.toMatch(/SECRET|acme\.example/);
  });

  test('of a statement that PostgreSQL refused, whoever operates it reads what the model is not told', async () => {
    const { lines } = await callOne(
      failing('fails', () => {
        throw new QueryError('42501', 'items_fk', postgres);
      }),
    );
    const told = lines.find(({ level }) => level === 'warn');
    expect(told?.fields).toMatchObject({ tool: 'fails', sqlstate: '42501', constraint: 'items_fk' });
    expect(JSON.stringify(lines)).not.toMatch(/SECRET|acme\.example/);
  });

  test('of a tool that writes although it says that it only reads, also what to do about it', async () => {
    const { lines } = await callOne(
      failing('fails', () => {
        throw new QueryError('25006', undefined, postgres);
      }),
    );
    expect(lines.find(({ level }) => level === 'error')?.fields).toMatchObject({
      sqlstate: '25006',
      remedy: expect.stringContaining('readOnlyHint'),
    });
  });

  test('“not yours” and “not there” read the same', async () => {
    const denied = failing('fails', () => {
      throw new QueryError('42501', undefined, postgres);
    });
    expect((await callOne(denied, {}, { tenant: acme })).text).toBe(
      (await callOne(denied, {}, { tenant: globex })).text,
    );
  });

  test('an answer that breaks the output schema stays inside', async () => {
    const { result, text, lines } = await callOne(failing('wrong', () => ({ fine: 'SECRET' })));
    expect(result).toMatchObject({ isError: true });
    expect(result).not.toHaveProperty('structuredContent');
    expect(text).toMatch(/no fault of yours/);
    const fault = lines.find(({ level }) => level === 'error');
    expect(fault?.fields.issues).toEqual([expect.stringMatching(/^fine: .*expected boolean/)]);
    expect(JSON.stringify(lines)).not.toContain('SECRET');
    expect(lines.at(-1)!.fields.outcome).toBe('invalid_output');
  });

  test('what the output schema does not name does not leave', async () => {
    const { result } = await callOne(failing('extra', () => ({ fine: true, password: 'SECRET' })));
    expect(result.structuredContent).toEqual({ fine: true });
    expect(JSON.stringify(result)).not.toContain('SECRET');
  });

  test('an enormous answer is refused', async () => {
    const enormous = defineTool({
      ...whoami,
      run: async () => ({ tenant: '', principal: '', text: 'x'.repeat(2_000_000) }),
    });
    expect((await callOne(enormous, { text: 'a' })).line.outcome).toBe('result_too_large');
  });
});

describe('a tool that does not end', () => {
  /** Ignores its signal, as a careless author's tool does. */
  const endless = (seen: { signal?: AbortSignal }, begun: () => void = () => {}) =>
    defineTool({
      name: 'endless',
      title: 'Endless',
      description: 'Never answers.',
      input: z.object({}),
      output: z.object({}),
      scopes: [],
      annotations: { readOnlyHint: true },
      run: (_, { signal }) => {
        seen.signal = signal;
        begun();
        return new Promise(() => {});
      },
    });

  test('is left at the deadline, and told so', async () => {
    const seen: { signal?: AbortSignal } = {};
    const { result, line } = await callOne(endless(seen), {}, { deadline: Date.now() + 500 });
    expect(result).toMatchObject({ isError: true, _meta: { 'tenantry/code': 'deadline_exceeded' } });
    expect(line.outcome).toBe('deadline_exceeded');
    expect(seen.signal?.aborted).toBe(true);
  });

  test('is left when the caller goes', async () => {
    const seen: { signal?: AbortSignal } = {};
    const gone = new AbortController();
    const leave = () => void setTimeout(() => gone.abort());
    const { line } = await callOne(endless(seen, leave), {}, { signal: gone.signal });
    expect(line.outcome).toBe('aborted');
    expect(seen.signal?.aborted).toBe(true);
  });
});

describe('what a tool is given', () => {
  test('mode by its annotation, the deadline, a cursor of its own and a log', async () => {
    const opened: unknown[] = [];
    const tool = (readOnlyHint: boolean) =>
      defineTool({
        name: 'look',
        title: 'Look',
        description: 'Looks around.',
        input: z.object({}),
        output: z.object({ position: z.number() }),
        scopes: [],
        annotations: { readOnlyHint },
        async run(_, { cursor, log, tenant, principal }) {
          log.info('looked', { tenant: 'forged', found: 1 });
          expect([tenant, principal]).toEqual([{ id: acme, slug: 'acme' }, `agent of ${acme}`]);
          return { position: cursor.open(cursor.seal(7)) as number };
        },
      });
    for (const readOnly of [true, false]) {
      const { endpoint, lines } = testEndpoint({
        tools: [tool(readOnly)],
        admit: async (principal) => {
          const tenant = admitted(principal);
          return {
            ...tenant,
            open(name, limits) {
              opened.push([name, limits]);
              return tenant.open(name, limits);
            },
          };
        },
      });
      const response = await endpoint(legacyPost(call('look', {})), principalFor(acme), 4_000_000_000_000);
      expect(((await response.json()) as { result: object }).result).toMatchObject({
        structuredContent: { position: 7 },
      });
      expect(lines[0]).toMatchObject({ message: 'looked', fields: { tenant: acme, tool: 'look', found: 1 } });
    }
    expect(opened).toEqual(
      ['r', 'w'].map((mode) => [
        'look',
        { mode, deadline: 4_000_000_000_000, signal: expect.any(AbortSignal) },
      ]),
    );
  });
});

test('a home that refuses its tenant is answered as the catalog would be', async () => {
  const suspended = failing('fails', () => {
    throw new TenantryError('tenant_suspended', 'SECRET');
  });
  const { endpoint, lines } = testEndpoint({ tools: [suspended] });
  for (const request of [legacyPost(call('fails')), modernPost('tools/call', { name: 'fails' })]) {
    const response = await endpoint(request, principalFor(acme), soon());
    expect(response.status).toBe(403);
    expect(await response.json()).toMatchObject({ id: 1, error: { data: { code: 'tenant_suspended' } } });
    expect(lines.at(-1)!.fields).toMatchObject({ tool: 'fails', outcome: 'tenant_suspended' });
  }
});
