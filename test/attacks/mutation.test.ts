import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../../functions/lib/database/connect.ts';
import { asRole } from '../../functions/lib/isolation/homes.ts';
import type { Strategy } from '../../functions/lib/tenant/tenant.ts';
import { corpus } from '../../infra/local/prove/corpus.ts';
import { closeTargets, prepareTargets, tryAttack } from '../../infra/local/prove/prove.ts';
import { endpoint } from '../support/cluster.ts';
import type { TestTenant, World } from '../support/world.ts';
import { partyOf, plantSecrets, startAttackedWorld } from './support.ts';

/** A corpus that nothing gets through proves something only if it notices a wall that is down. */
let world: World;
beforeAll(async () => {
  world = await startAttackedWorld();
  genuine = await world.asProvisioner(world.tenants.rls.a, (connection) =>
    asRole(connection, 'tenancy_keeper', async () => {
      const { rows } = await connection.query(
        "select pg_get_functiondef('tenancy.current_tenant()'::regprocedure) as definition",
      );
      return rows[0]!.definition;
    }),
  );
});
afterAll(() => world?.close());

type Role = 'tenancy_owner' | 'tenancy_keeper' | 'superuser';
interface Mutation {
  readonly breach: string;
  readonly strategy: Strategy;
  readonly as: Role;
  readonly break: () => string;
  readonly mend: () => string;
  /** Each of these must notice. */
  readonly noticedBy: readonly string[];
  /** Of which the attack is; `canaries` when absent. */
  readonly table?: string;
}

/** Of each mutation's own: what a breach lets through may take rows with it. */
let victim: TestTenant;
/** `tenancy.current_tenant`, as it is installed. */
let genuine: string;
const attackerOf = (strategy: Strategy) => world.tenants[strategy].a;
const own = 'tenant_id = (select tenancy.current_tenant())';
const first =
  '(json_object(tenant_id : true returning jsonb))[(select tenancy.current_tenant()::text)] is not null';
const plain = "tenant_id = nullif(current_setting('tenancy.tenant', true), '')::uuid";
const policies = (sees: string, writes = sees) =>
  ['tenancy_guard', 'tenancy_rows']
    .map((name) => `alter policy ${name} on shared.canaries using (${sees}) with check (${writes})`)
    .join('; ');

const mutations: readonly Mutation[] = [
  {
    breach: 'policies that let everything through',
    strategy: 'rls',
    as: 'tenancy_owner',
    break: () => policies('true'),
    mend: () => policies(`${own} and ${first}`, own),
    noticedBy: [
      'asks for the rows by name',
      'TABLE, VALUES, unions and counts',
      'COPY to the client',
      'row locks on what it can name',
      'keys as an oracle: does this row exist?',
    ],
  },
  {
    breach: 'policies over a setting that nobody has signed',
    strategy: 'rls',
    as: 'tenancy_owner',
    break: () => policies(plain),
    mend: () => policies(`${own} and ${first}`, own),
    noticedBy: [
      'SET of the tenant setting',
      'SET LOCAL of the tenant setting',
      'set_config before the statement',
      'set_config for the session',
      'set_config in a subselect kept apart by OFFSET 0',
      'set_config in a materialized CTE',
      'set_config hidden by Unicode escapes',
      'set_config hidden in the text of query_to_xml',
      'set_config hidden in the text of ts_stat and ts_rewrite',
      'set_config through EXECUTE in a DO block',
      'enters as itself and then changes the setting under it',
      'changes inside a CTE of a reading statement',
    ],
  },
  {
    breach: 'policies that are asked after conditions that cost less',
    strategy: 'rls',
    as: 'tenancy_owner',
    break: () => policies(own),
    mend: () => policies(`${own} and ${first}`, own),
    noticedBy: ['conditions that cost less than the wall'],
  },
  {
    breach: 'policies that compare after conditions that cost less',
    strategy: 'rls',
    as: 'tenancy_owner',
    break: () => policies('(tenant_id, true) = (select tenancy.current_tenant(), true)'),
    mend: () => policies(`${own} and ${first}`, own),
    noticedBy: ['a subquery that runs at a row before the wall does'],
  },
  {
    breach: 'row security switched off',
    strategy: 'rls',
    as: 'tenancy_owner',
    break: () => 'alter table shared.canaries disable row level security',
    mend: () => 'alter table shared.canaries enable row level security',
    noticedBy: ['reads without ever entering'],
  },
  {
    breach: 'a context that is believed without its signature',
    strategy: 'rls',
    as: 'tenancy_keeper',
    break: () =>
      `create or replace function tenancy.current_tenant() returns uuid language sql stable security definer
         as $$ select nullif(split_part(current_setting('tenancy.context', true), '.', 4), '')::uuid $$`,
    mend: () => genuine,
    noticedBy: ['a forged context in the setting', 'a forged context in the same statement'],
  },
  {
    breach: 'a policy that checks what is read and not what is written',
    strategy: 'rls',
    as: 'tenancy_owner',
    break: () => policies(`${own} and ${first}`, 'true'),
    mend: () => policies(`${own} and ${first}`, own),
    noticedBy: ['keys as an oracle: does this row exist?'],
  },
  {
    breach: 'a key that is unique over all tenants',
    strategy: 'rls',
    as: 'tenancy_owner',
    break: () => 'create unique index leaky on shared.canaries (canary_id)',
    mend: () => 'drop index shared.leaky',
    noticedBy: ["the victim's keys under its own name"],
  },
  {
    breach: 'a login that row security does not bind',
    strategy: 'rls',
    as: 'superuser',
    break: () => 'alter role tenancy_app bypassrls',
    mend: () => 'alter role tenancy_app nobypassrls',
    noticedBy: [
      'asks for the rows by name',
      'reads without ever entering',
      'cursors, also one that outlives the transaction',
    ],
  },
  {
    breach: 'statistics of a table without row security for readers',
    strategy: 'rls',
    as: 'superuser',
    break: () => 'analyze shared.canaries; alter role tenancy_app bypassrls',
    mend: () => 'alter role tenancy_app nobypassrls',
    noticedBy: ['statistics of columns'],
  },
  {
    breach: "a grant on the neighbour's schema",
    strategy: 'schema',
    as: 'tenancy_owner',
    break: () => {
      const [from, to] = [victim.home.schema, attackerOf('schema').home.login];
      return `grant usage on schema ${from} to ${to}; grant select on all tables in schema ${from} to ${to}`;
    },
    mend: () => {
      const [from, to] = [victim.home.schema, attackerOf('schema').home.login];
      return `revoke all on all tables in schema ${from} from ${to}; revoke all on schema ${from} from ${to}`;
    },
    noticedBy: [
      'asks for the rows by name',
      'search_path pointed at the victim',
      'schema and database exports as XML',
      'whatever in the other schema lets itself be read',
      'joins, semi-joins, windows and set operations against its own rows',
    ],
  },
  {
    breach: 'a grant that lets a neighbour lock',
    strategy: 'schema',
    as: 'tenancy_owner',
    break: () => {
      const [from, to] = [victim.home.schema, attackerOf('schema').home.login];
      return `grant usage on schema ${from} to ${to}; grant insert on ${from}.canaries to ${to}; grant update (words) on ${from}.canaries to ${to}; grant truncate on ${from}.notes to ${to}; grant update on ${from}.canaries to ${to}`;
    },
    mend: () => {
      const [from, to] = [victim.home.schema, attackerOf('schema').home.login];
      return `revoke all on all tables in schema ${from} from ${to}; revoke all on schema ${from} from ${to}`;
    },
    noticedBy: ["LOCK TABLE on another schema's table"],
  },
  {
    breach: "membership in the neighbour's login",
    strategy: 'schema',
    as: 'superuser',
    break: () =>
      `grant ${victim.home.login} to ${attackerOf('schema').home.login} with inherit false, set true`,
    mend: () => `revoke ${victim.home.login} from ${attackerOf('schema').home.login}`,
    noticedBy: ['SET ROLE', 'the role setting through set_config'],
  },
  {
    breach: 'rows that may name another tenant',
    strategy: 'schema',
    as: 'tenancy_owner',
    break: () => `alter table ${attackerOf('schema').home.schema}.canaries drop constraint tenancy_home`,
    mend: () =>
      `delete from ${attackerOf('schema').home.schema}.canaries where tenant_id <> '${attackerOf('schema').id}'`,
    noticedBy: ["a row of the victim's planted among its own"],
  },
  {
    breach: "a tenant's id in a constraint",
    strategy: 'schema',
    as: 'tenancy_owner',
    break: () =>
      `alter table ${victim.home.schema}.canaries add constraint named check (tenant_id = '${victim.id}')`,
    mend: () => `alter table ${victim.home.schema}.canaries drop constraint named`,
    noticedBy: ["the victim's identity in constraints and defaults"],
  },
  {
    breach: 'a server file that everybody may read',
    strategy: 'schema',
    as: 'superuser',
    break: () => 'grant execute on function pg_read_file(text), pg_read_binary_file(text) to public',
    mend: () => 'revoke execute on function pg_read_file(text), pg_read_binary_file(text) from public',
    noticedBy: ['files'],
  },
  {
    breach: 'a right to end sessions',
    strategy: 'schema',
    as: 'superuser',
    break: () => `grant pg_signal_backend to ${attackerOf('schema').home.login}`,
    mend: () => `revoke pg_signal_backend from ${attackerOf('schema').home.login}`,
    noticedBy: ['ends or cancels sessions of another login'],
  },
  {
    breach: 'a right to truncate',
    strategy: 'rls',
    as: 'tenancy_owner',
    break: () => 'grant truncate on shared.canaries to tenancy_app',
    mend: () => 'revoke truncate on shared.canaries from tenancy_app',
    noticedBy: ['DROP and TRUNCATE'],
  },
  {
    breach: 'row security switched off, for writers',
    strategy: 'rls',
    as: 'tenancy_owner',
    break: () => 'alter table shared.notes disable row level security',
    mend: () => 'alter table shared.notes enable row level security',
    noticedBy: ['UPDATE and DELETE by the tenant id'],
    table: 'notes',
  },
];

describe.each(mutations)(
  '$strategy, $breach',
  ({ strategy, as, break: wreck, mend, noticedBy, table = 'canaries' }) => {
    it('is noticed', async () => {
      victim = await world.addTenant(strategy);
      await plantSecrets(world, victim);
      const attacker = await partyOf(world, attackerOf(strategy));
      const targets = await prepareTargets(world.plane.keys, [await partyOf(world, victim)]);
      await execute(as, wreck());
      const blind: string[] = [];
      try {
        for (const name of noticedBy) {
          const theme = corpus.find(({ attacks }) => attacks.some((attack) => attack.name === name));
          const attack = theme?.attacks.find((attack) => attack.name === name);
          if (!theme || !attack) throw new Error(`No attack is called "${name}".`);
          const finding = await tryAttack(
            world.plane.keys,
            attacker,
            targets[0]!,
            table,
            theme,
            attack,
            'simple',
          );
          if (finding?.outcome !== 'leaked') blind.push(name);
        }
      } finally {
        await closeTargets(targets);
        await execute(as, mend());
      }
      expect(blind).toEqual([]);
    });
  },
);

/** By one who may, in the victim's database. */
async function execute(role: Role, sql: string): Promise<void> {
  const { server } = world.cluster;
  if (role === 'superuser') {
    const at = { host: server.host, port: server.port, database: victim.home.database, login: 'postgres' };
    await withConnection(endpoint(at, server.superuserPassword), (connection) => connection.query(sql));
    return;
  }
  await world.asProvisioner(victim, (connection) => asRole(connection, role, () => connection.query(sql)));
}
