import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ControlConnection } from '../../../functions/lib/database/connect.ts';
import { asRole, audit } from '../../../functions/lib/isolation/homes.ts';
import { sharedHome } from '../../../functions/lib/isolation/isolation.ts';
import { startWorld, strategies, type TestTenant, type World } from '../../support/world.ts';

/** The wall goes before any condition of a statement's own: neither what it costs nor what it runs tells of others' rows. */
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

/** Each signals by a subquery of its own, which runs at the first row that the conditions in front of it let through. */
const signals = (amount: number, none = amount === 4711 ? 'is' : 'is not') => [
  `amount = any ('{${amount}}') and amount = any (array[(select signal())])`,
  `amount < any ('{${amount + 1}}') and amount > any ('{${amount - 1}}') and amount <> any (array[(select signal())])`,
  `case when amount = any ('{${amount}}') then (select signal() = 0) end`,
  `parent_id ${none} null and case when parent_id ${none} null then (select signal() = 0) end`,
  `parent_id ${none} null and amount = any (array[(select signal())])`,
];

describe.each(strategies)('a signal from a row of %s', (strategy) => {
  const isGiven = async (condition: string, setting: string) => {
    const { a, b } = world.tenants[strategy];
    return world.asLogin(a, async (connection) => {
      await entered(connection, a);
      await connection.query(`set local ${setting}; savepoint here`);
      const signal = `length(set_config('tests.signal', 'given', false))`;
      const { rows } = await connection
        .query(
          `select (select count(*) from ${b.home.schema}.notes where tenant_id = any ('{${b.id}}') and ${condition.replace('signal()', signal)}),
             current_setting('tests.signal', true) as signal`,
        )
        .catch(() => ({ rows: [] }));
      return rows[0]?.signal === 'given';
    });
  };

  it.each([
    'enable_seqscan = on',
    'cpu_operator_cost = 0',
    'cpu_operator_cost = 1e300',
    'enable_seqscan = off',
    'debug_parallel_query = on',
  ])('is never given, with %s', async (setting) => {
    for (const condition of [...signals(4711), ...signals(4712)])
      expect(await isGiven(condition, setting), condition).toBe(false);
  });
});

it('is the first condition of every scan, and costs PostgreSQL nothing', async () => {
  const { a, b } = world.tenants.rls;
  const told = (scan: string, condition: string) =>
    world.asLogin(a, async (connection) => {
      await entered(connection, a);
      const { rows } = await connection.query<{ 'QUERY PLAN': string }>(
        `explain (analyze, costs off, timing off, summary off) select * from notes ${scan} ${condition}`,
      );
      return rows.map((row) => row['QUERY PLAN']).join('\n');
    });
  for (const scan of [
    'where',
    'tablesample system (100) where',
    "where ctid < '(9,1)' and",
    "where ctid = '(0,1)' and",
  ])
    for (const [right, wrong] of guesses(b)) {
      const plan = await told(scan, right!);
      expect(plan).toMatch(
        /Filter: \(+JSON_OBJECT\(tenant_id : true RETURNING jsonb\)\)\[\(InitPlan 2\).col1\] IS NOT NULL\) AND /,
      );
      expect(plan).not.toMatch(/InitPlan 2\n.*never executed/);
      const outcome = (text: string) => text.replaceAll(/Filter: .*/g, '');
      expect(outcome(plan)).toBe(outcome(await told(scan, wrong!)));
    }
});

it('is asked for by the audit', async () => {
  const { a } = world.tenants.rls;
  const findings = () =>
    world.asProvisioner(a, (connection) =>
      asRole(connection, 'tenancy_owner', () => audit(connection, [sharedHome], true)),
    );
  const later = '(tenant_id, true) = (select tenancy.current_tenant(), true)';
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
