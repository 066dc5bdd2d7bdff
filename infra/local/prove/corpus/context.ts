import { literal } from '../../../../functions/lib/database/connect.ts';
import type { Aim, Theme } from '../attack.ts';

const everything = ({ victim }: Aim) =>
  `select v.* from ${victim.relation} v where v.tenant_id = '${victim.tenant}'`;
const claim = ({ victim }: Aim, setting = 'tenancy.tenant') =>
  `set_config('${setting}', '${victim.tenant}', true)`;

/** The statement alone, then a look at the victim's rows. */
const then =
  (...statements: ((aim: Aim) => string)[]) =>
  (aim: Aim) => [...statements.map((statement) => statement(aim)), everything(aim)];

/** Becoming another tenant for the database: by settings, by contexts, by telling `enter` something else. */
export const context: Theme = {
  title: 'Posing as the other tenant',
  attacks: [
    { name: 'asks for the rows by name', sql: then() },
    {
      name: 'SET of the tenant setting',
      sql: then(({ victim }) => `set tenancy.tenant = '${victim.tenant}'`),
    },
    {
      name: 'SET LOCAL of the tenant setting',
      sql: then(({ victim }) => `set local tenancy.tenant = '${victim.tenant}'`),
    },
    { name: 'set_config before the statement', sql: then((aim) => `select ${claim(aim)}`) },
    {
      name: 'set_config for the session',
      sql: then(
        ({ victim }) => `select set_config('tenancy.tenant', '${victim.tenant}', false)`,
        () => 'commit',
      ),
    },
    {
      name: 'set_config in a subselect kept apart by OFFSET 0',
      sql: (aim) => [`select v.* from (select ${claim(aim)} offset 0) s, ${aim.victim.relation} v`],
    },
    {
      name: 'set_config in a materialized CTE',
      sql: (aim) => [
        `with s as materialized (select ${claim(aim)} as t) select v.* from s, ${aim.victim.relation} v where v.tenant_id::text = s.t`,
      ],
    },
    {
      name: 'set_config in a lateral function call',
      sql: (aim) => [
        `select v.* from ${claim(aim)} s cross join lateral (select * from ${aim.victim.relation} where tenant_id::text = s) v`,
      ],
    },
    {
      name: 'set_config in a WHERE that is evaluated first',
      sql: (aim) => [`select * from ${aim.victim.relation} where ${claim(aim)} is not null`],
    },
    {
      name: 'set_config in ORDER BY, LIMIT and a CASE',
      sql: (aim) => [
        `select * from ${aim.victim.relation} order by ${claim(aim)} limit length(${claim(aim)})`,
        `select case when ${claim(aim)} <> '' then (select json_agg(v) from ${aim.victim.relation} v) end`,
      ],
    },
    {
      name: 'set_config hidden by Unicode escapes',
      sql: (aim) => [
        `select U&"set\\005fconfig"('tenancy.tenant', '${aim.victim.tenant}', true)`,
        everything(aim),
      ],
    },
    {
      name: 'set_config hidden in the text of query_to_xml',
      sql: (aim) => [
        `select query_to_xml(${literal(`select ${claim(aim)}`)}, true, false, ''), query_to_xml(${literal(everything(aim))}, true, false, '')`,
      ],
    },
    {
      name: 'set_config hidden in the text of ts_stat and ts_rewrite',
      sql: (aim) => [
        `select * from ts_stat(${literal(`select to_tsvector('simple', ${claim(aim)})`)})`,
        `select * from ts_stat(${literal(`select to_tsvector('simple', v::text) from ${aim.victim.relation} v`)})`,
        `select ts_rewrite('a'::tsquery, ${literal(`select 'a'::tsquery, plainto_tsquery('simple', v::text) from ${aim.victim.relation} v`)})`,
      ],
    },
    {
      name: 'set_config through EXECUTE in a DO block',
      sql: then(
        ({ victim }) =>
          `do $$ begin execute 'select set_config(''tenancy.tenant'', ''${victim.tenant}'', false)'; end $$`,
      ),
    },
    {
      name: 'a DO block that commits and goes on as another tenant',
      sql: then((aim) => `do $$ begin commit; perform ${claim(aim).replace('true', 'false')}; end $$`),
    },
    {
      name: 'UPDATE of pg_settings',
      sql: then(
        ({ victim }) => `update pg_settings set setting = '${victim.tenant}' where name = 'tenancy.tenant'`,
      ),
    },
    {
      name: 'RESET and DISCARD of the context',
      sql: (aim) => [
        'reset tenancy.context',
        everything(aim),
        'reset all',
        everything(aim),
        'discard all',
        everything(aim),
      ],
    },
    {
      name: 'ends the transaction and reads without a context',
      sql: (aim) => ['commit', everything(aim), 'rollback', everything(aim), 'begin', everything(aim)],
    },
    { name: 'reads without ever entering', from: 'session', sql: then() },
    {
      name: 'an empty context',
      sql: then(() => `select set_config('tenancy.context', '', true)`),
    },
    {
      name: 'a forged context in the setting',
      sql: (aim) =>
        aim.forgeries.flatMap((forged) => [
          `select set_config('tenancy.context', ${literal(forged)}, true)`,
          everything(aim),
        ]),
    },
    {
      name: 'a forged context in the same statement',
      sql: (aim) =>
        aim.forgeries.map(
          (forged) =>
            `select v.* from (select set_config('tenancy.context', ${literal(forged)}, true) offset 0) s, ${aim.victim.relation} v`,
        ),
    },
    {
      name: 'makes a pass for the victim, out of what a login can read',
      sql: (aim) =>
        [
          `encode(sha256(timestamptz_send(now()) || convert_to('${aim.victim.tenant}' || current_setting('transaction_read_only'), 'UTF8')), 'hex')`,
          `tenancy.pass('${aim.victim.tenant}')`,
          "pg_sequence_last_value('tenancy.pass_secret_1')::text",
          '(select last_value::text from tenancy.pass_secret_1)',
          "current_setting('tenancy.pass')",
        ].flatMap((pass) => [
          `select ${claim(aim)}, set_config('tenancy.pass', ${pass}, true)`,
          everything(aim),
        ]),
    },
    {
      name: 'keeps its pass over a commit and claims to be the victim',
      sql: (aim) => [
        `do $$ declare pass text := current_setting('tenancy.pass'); begin commit; perform ${claim(aim)}, set_config('tenancy.pass', pass, true); end $$`,
        everything(aim),
      ],
    },
    {
      name: 'enters again with a forged context',
      sql: (aim) =>
        aim.forgeries.flatMap((forged) => [`select tenancy.enter(${literal(forged)})`, everything(aim)]),
    },
    {
      name: 'enters from outside with a forged context',
      from: 'session',
      sql: (aim) =>
        aim.forgeries.flatMap((forged) => [
          'begin isolation level read committed',
          `select tenancy.enter(${literal(forged)})`,
          everything(aim),
          'rollback',
        ]),
    },
    {
      name: 'a context of its own with another epoch, mode, purpose, database or time',
      sql: (aim) =>
        aim.misfits.flatMap((misfit) => [`select tenancy.enter(${literal(misfit)})`, everything(aim)]),
    },
    {
      name: 'a maintenance context of its own in the setting',
      sql: (aim) =>
        aim.misfits.flatMap((misfit) => [
          `select set_config('tenancy.context', ${literal(misfit)}, true)`,
          everything(aim),
        ]),
    },
    {
      name: 'enters as itself and then changes the setting under it',
      sql: (aim) => [`select tenancy.enter(${literal(aim.context)}), ${claim(aim)}`, everything(aim)],
    },
    {
      name: "the victim's own context, on another login",
      sql: (aim) =>
        aim.stolen === undefined
          ? []
          : [
              `select tenancy.enter(${literal(aim.stolen)})`,
              everything(aim),
              `select set_config('tenancy.context', ${literal(aim.stolen)}, true)`,
              everything(aim),
            ],
    },
    {
      name: 'verify with hostile arguments',
      sql: ({ victim, context }) => [
        `select * from tenancy.verify(null)`,
        `select * from tenancy.verify(repeat('.', 9))`,
        `select * from tenancy.verify(${literal(context.replace(/^v1\.[^.]+/, "v1.k' or true --"))})`,
        `select * from tenancy.verify((select string_agg(t::text, '') from ${victim.relation} t))`,
        `select tenancy.authenticate(${literal(context)})`,
        'select tenancy.maintained_tenants()',
      ],
    },
    {
      name: 'calls what only migrations may call',
      sql: ({ own, victim }) => [
        `select tenancy.protect_shared('${victim.schema}')`,
        `select tenancy.protect_owned('${victim.schema}', '${own.tenant}', '${own.login}')`,
        `select * from tenancy.audit_homes(array['${victim.schema}'], array['${victim.tenant}'], array['${own.login}'], true)`,
        `select * from tenancy.home_tables('${victim.schema}')`,
        'select tenancy.capture()',
      ],
    },
  ],
};
