import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ControlConnection } from '../../../functions/lib/database/connect.ts';
import { asRole, audit } from '../../../functions/lib/isolation/homes.ts';
import { sharedHome } from '../../../functions/lib/migrations/migrator.ts';
import { startWorld, strategies, type TestTenant, type World } from '../../support/world.ts';

/** The wall is asked before any condition of a statement's own: whether it was asked tells nothing about others' rows. */
let world: World;
beforeAll(async () => {
  world = await startWorld();
  for (const strategy of strategies)
    await world
      .database(world.tenants[strategy].b)
      .query("insert into notes (body, amount) values ('the secret', 4711)");
});
afterAll(() => world?.close());

const entered = async (connection: ControlConnection, tenant: TestTenant) => {
  await connection.query('begin isolation level read committed');
  await connection.query('select tenancy.enter($1)', [world.context(tenant)]);
  await connection.query('set local enable_indexscan = off; set local enable_bitmapscan = off');
};

/** True of the victim's row, and of nobody's. Each costs less than the policy's own comparison, or nothing. */
const guesses = (victim: TestTenant) => [
  [`amount = any ('{4711}')`, `amount = any ('{4712}')`],
  [
    `tenant_id = any ('{${victim.id}}') and amount < any ('{4712}')`,
    `tenant_id = any ('{${victim.id}}') and amount < any ('{4711}')`,
  ],
  [`body = any ('{the secret}')`, `body = any ('{another}')`],
  ['parent_id is null', 'parent_id is not null'],
  [
    `case when parent_id is null then amount = any ('{4711}') end`,
    `case when parent_id is null then amount = any ('{1}') end`,
  ],
];

describe.each(strategies)('a guess at a row of %s', (strategy) => {
  const outcome = async (condition: string, statement: string, pass: boolean) => {
    const { a, b } = world.tenants[strategy];
    return world.asLogin(a, async (connection) => {
      await entered(connection, a);
      if (!pass) await connection.query("select set_config('tenancy.pass', '', true)");
      return connection.query(`${statement} ${b.home.schema}.notes where ${condition}`).then(
        ({ rows }) => JSON.stringify(rows),
        ({ code }) => code,
      );
    });
  };

  it.each(['select * from', 'select count(*) from', 'delete from'])(
    'is answered alike, right or wrong: %s',
    async (statement) => {
      for (const [right, wrong] of guesses(world.tenants[strategy].b))
        for (const pass of [true, false])
          expect(await outcome(right!, statement, pass), right).toBe(await outcome(wrong!, statement, pass));
    },
  );
});

it('is told by no count of the executor’s', async () => {
  const { a, b } = world.tenants.rls;
  for (const condition of guesses(b).flat())
    await world.asLogin(a, async (connection) => {
      await entered(connection, a);
      const { rows } = await connection.query<{ 'QUERY PLAN': string }>(
        `explain (analyze, costs off, timing off) select * from notes where ${condition}`,
      );
      const plan = rows.map((row) => row['QUERY PLAN']).join('\n');
      expect(plan).toContain('Filter: ((InitPlan 1).col2 AND');
      expect(plan).not.toContain('never executed');
    });
});

it('is asked for by the audit', async () => {
  const { a } = world.tenants.rls;
  const findings = () =>
    world.asProvisioner(a, (connection) =>
      asRole(connection, 'tenancy_owner', () => audit(connection, [sharedHome], true)),
    );
  const later = 'tenant_id = (select tenancy.current_tenant())';
  await world.asProvisioner(a, (connection) =>
    asRole(connection, 'tenancy_owner', async () => {
      for (const policy of ['tenancy_guard', 'tenancy_rows'])
        await connection.query(
          `alter policy ${policy} on shared.notes using (${later}) with check (${later})`,
        );
    }),
  );
  expect((await findings()).map(({ finding }) => finding)).toEqual([
    'the policy tenancy_guard is missing or changed',
    'the policy tenancy_rows is missing or changed',
  ]);
  await world.asProvisioner(a, (connection) =>
    asRole(connection, 'tenancy_owner', () =>
      connection.query(`drop policy tenancy_guard on shared.notes; drop policy tenancy_rows on shared.notes;
        select tenancy.protect_shared('shared')`),
    ),
  );
  expect(await findings()).toEqual([]);
});
