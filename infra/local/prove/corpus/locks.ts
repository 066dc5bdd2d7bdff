import type { Aim, Theme } from '../attack.ts';

const modes = ['access share', 'row exclusive', 'share', 'access exclusive'];

/** Standing in the victim's way without touching its rows. */
export const locks: Theme = {
  title: 'Standing in the way',
  attacks: [
    {
      name: 'row locks on what it can name',
      sql: ({ victim }: Aim) => [
        `select * from ${victim.relation} for update`,
        `select * from ${victim.relation} where tenant_id = '${victim.tenant}' for key share`,
        `select v.* from (select set_config('tenancy.tenant', '${victim.tenant}', true) offset 0) s, ${victim.relation} v for update`,
      ],
    },
    {
      name: 'an open transaction with changes of its own',
      sql: ({ own }) => [
        `update ${own.relation} set tenant_id = tenant_id`,
        `select * from ${own.relation} for update`,
      ],
    },
    {
      name: "LOCK TABLE on another schema's table",
      sql: ({ own, victim }) =>
        own.schema === victim.schema
          ? []
          : modes.map((mode) => `lock table ${victim.relation} in ${mode} mode`),
    },
    {
      name: "LOCK TABLE on the runtime's and the system's tables",
      sql: () => [
        'lock table tenancy.homes in access exclusive mode',
        'lock table tenancy.keys in access share mode',
        'lock table tenancy.changes in row exclusive mode',
        'lock table pg_class in row exclusive mode',
        'lock table pg_authid in access share mode',
        // Everybody may UPDATE pg_settings, so everybody may lock it: nothing of a call may read it.
        'lock table pg_settings in access exclusive mode',
      ],
    },
    {
      name: 'LOCK TABLE smuggled into a SELECT',
      sql: ({ victim }) => [
        `select query_to_xml('lock table ${victim.relation.replaceAll('"', '')} in access exclusive mode', true, false, '')`,
        `select * from ts_stat('lock table ${victim.relation.replaceAll('"', '')} in access exclusive mode')`,
        `select cursor_to_xml('lock table ${victim.relation.replaceAll('"', '')}', 1, true, false, '')`,
      ],
    },
    {
      name: 'advisory locks of tenants, migrations and installers that it can guess',
      sql: ({ victim }) => [
        `select pg_try_advisory_lock(hashtextextended('${victim.tenant}', 0)), pg_try_advisory_lock(hashtext('${victim.tenant}'))`,
        `select pg_try_advisory_lock(('x' || left(replace('${victim.tenant}', '-', ''), 16))::bit(64)::bigint)`,
        `select pg_try_advisory_lock(hashtext('tenancy.migrate'), hashtext('${victim.schema}'))`,
        "select pg_try_advisory_lock(hashtext('tenancy.roles'), 0)",
        'select pg_try_advisory_lock(i) from generate_series(-100, 100) i',
      ],
    },
    {
      name: 'a deadlock, a long sleep, a lock that is awaited',
      sql: ({ own }) => [
        `select * from ${own.relation} for update`,
        'set lock_timeout = 0',
        'set statement_timeout = 0',
        'set idle_in_transaction_session_timeout = 0',
        'set transaction_timeout = 0',
        'select pg_sleep(0.01)',
      ],
    },
  ],
};
