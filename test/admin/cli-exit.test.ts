import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Command } from 'commander';
import { describe, expect, it, vi } from 'vitest';
import { type AdminClient, connect } from '../../functions/admin/cli/connection.ts';
import { operationText, requireDone } from '../../functions/admin/cli/follow.ts';
import { migrateCommands } from '../../functions/admin/cli/migrate.ts';
import { moveTier } from '../../functions/admin/cli/move-batch.ts';
import { createOutput } from '../../functions/admin/cli/output.ts';
import { transferCommands } from '../../functions/admin/cli/transfer.ts';
import type { OperationView, OperationWithSteps } from '../../functions/lib/admin/operations.ts';

/** 1 failed, 3 refused: scripts tell by it whether what they have asked for has to be changed. */
describe('a command’s exit code', () => {
  const ended = (state: object) => () =>
    requireDone(
      { kind: 'import', failedStep: null, reason: null, result: {}, ...state } as OperationView,
      'Next.',
    );

  it.each([
    ['failed', { state: 'failed', failedStep: 'copy', reason: 'Why.' }, 1, 'Failed at copy: Why.\nNext.'],
    ['refused', { state: 'failed', result: { refused: true } }, 3, 'Failed at'],
    ['cancelled', { state: 'cancelled', reason: 'An operator.' }, 1, 'An operator.'],
  ])('of an operation that was %s', (_, state, exitCode, message) => {
    expect(ended(state)).toThrow(
      expect.objectContaining({ exitCode, message: expect.stringContaining(message) }),
    );
  });

  it.each(['running', 'done'])('of one that is %s is 0', (state) => {
    expect(ended({ state })).not.toThrow();
  });

  it('an operation that failed names the command that goes on', () => {
    const operation = (kind: string) =>
      operationText({
        ...{ id: '1', kind, tenant: 'acme', state: 'failed', failedStep: 'gate', reason: 'No room.' },
        ...{
          startedAt: '2026-11-27T07:00:00Z',
          finishedAt: '2026-11-27T07:00:01Z',
          steps: [],
          earlierSteps: 0,
        },
      } as unknown as OperationWithSteps);
    expect(operation('migrate')).toContain('npm run tenants -- migrate resume');
    expect(operation('move')).toContain('failed at gate: No room.\nWhat to do: npm run tenants -- why acme');
  });

  it('of a plan whose files would be refused is that of what is refused', async () => {
    const refused = { strategy: 'rls', outcome: 'refused', reason: '0002.sql, line 1: no.' };
    const post = async () => ({ status: 200, body: { version: '0002', total: 0, rehearsals: [refused] } });
    const program = new Command();
    migrateCommands(program, { post } as unknown as AdminClient, () => ({
      ...createOutput(true),
      print() {},
    }));
    await expect(program.parseAsync(['migrate', 'plan'], { from: 'user' })).rejects.toMatchObject({
      exitCode: 3,
      message: expect.stringContaining('0002.sql, line 1'),
    });
  });

  it('of a call that never came to the function says that it may be waking up', async () => {
    // API Gateway's own answer when Lambda lets a function not be called.
    const gateway = createServer((_, response) => {
      response
        .writeHead(500, { 'content-type': 'application/json' })
        .end('{"message": "Internal server error"}');
    }).listen(0, '127.0.0.1');
    await once(gateway, 'listening');
    const { port } = gateway.address() as AddressInfo;
    vi.stubEnv('AWS_REGION', 'eu-west-1');
    vi.stubEnv('AWS_ACCESS_KEY_ID', 'a');
    vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'b');
    const client = connect(() => ({ adminUrl: `http://127.0.0.1:${port}` }) as never);
    await expect(client.get('/tenants')).rejects.toMatchObject({
      exitCode: 4,
      code: 'http_500',
      message: expect.stringContaining('two weeks without a call'),
    });
    vi.unstubAllEnvs();
    gateway.close();
  });

  it.each([
    ['nobody is left', []],
    ['nobody can be moved now', [{ tenant: 'acme', blocks: ['It is suspended.'] }]],
  ])('of a plan to move a tier of which %s is that of what is refused', async (_, tenants) => {
    const plan = (found: object[]) => {
      const post = async () => ({ status: 200, body: { tier: 'pro', to: 'schema', tenants: found } });
      return moveTier(
        { post } as unknown as AdminClient,
        { ...createOutput(true), answer() {} },
        {},
        { dryRun: true },
      );
    };
    await expect(plan(tenants)).rejects.toMatchObject({ exitCode: 3, code: 'move_refused' });
    await plan([...tenants, { tenant: 'globex', blocks: [] }]);
  });
});

it.each([
  ['export acme --to out', true],
  ['export acme --to out --wait', true],
  ['export acme --to out --no-wait', false],
  ['import acme --from in --wait', true],
  ['import acme --from in --no-wait', false],
])('`%s` follows its operation: %s', async (line, follows) => {
  const operation = (state: string) => ({
    ...{ id: '1', kind: 'export', tenant: 'acme', state, result: {}, steps: [], earlierSteps: 0 },
    ...{ startedAt: '2026-11-27T07:00:00Z', finishedAt: null },
  });
  const get = vi.fn(async () => ({ status: 200, body: operation('done') }));
  const post = async () => ({ status: 202, body: { operation: operation('running') } });
  const program = new Command();
  transferCommands(program, { get, post } as unknown as AdminClient, () => ({
    ...createOutput(true),
    answer() {},
    note() {},
  }));
  await program.parseAsync(line.split(' '), { from: 'user' });
  expect(get.mock.calls.length > 0).toBe(follows);
});
