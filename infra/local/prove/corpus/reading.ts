import { literal } from '../../../../functions/lib/database/connect.ts';
import type { Theme } from '../attack.ts';

/** Reading past the wall by other ways of naming rows. */
export const reading: Theme = {
  title: 'Reading rows',
  aboutTables: true,
  onlyReads: true,
  attacks: [
    {
      name: 'TABLE, VALUES, unions and counts',
      sql: ({ victim }) => [
        `table ${victim.relation}`,
        `(select * from ${victim.relation}) union all (table only ${victim.relation})`,
        `select count(*), max(v::text), json_agg(v) from ${victim.relation} v`,
        `values ((select min(v::text) from ${victim.relation} v))`,
      ],
    },
    {
      name: 'COPY to the client',
      sql: ({ victim }) => [
        `copy ${victim.relation} to stdout`,
        `copy (select * from ${victim.relation}) to stdout`,
      ],
    },
    {
      name: 'by physical place',
      sql: ({ victim }) => [
        `select * from ${victim.relation} where ctid = any (array(select format('(%s,%s)', p, i)::tid from generate_series(0, 9) p, generate_series(1, 60) i))`,
        `select tableoid::regclass, ctid, xmin, v.* from ${victim.relation} v`,
      ],
    },
    {
      name: 'whatever in the other schema lets itself be read',
      sql: ({ victim }) => [
        `select query_to_xml(format('select * from %s', oid::regclass), true, false, '') from pg_class
          where relnamespace::regnamespace::text = '${victim.schema}' and relkind in ('r', 'p', 'v', 'm', 'f') and has_table_privilege(oid, 'select')`,
        `select oid::regprocedure from pg_proc where pronamespace::regnamespace::text = '${victim.schema}'`,
      ],
    },
    {
      name: 'schema and database exports as XML',
      sql: ({ victim }) => [
        `select schema_to_xml('${victim.schema}', true, false, '')`,
        `select database_to_xml(true, false, '')`,
      ],
    },
    {
      name: 'table exports as XML',
      sql: ({ victim }) => [
        `select table_to_xml(${literal(victim.relation)}, true, false, '')`,
        `select query_to_xml_and_xmlschema(${literal(`select * from ${victim.relation}`)}, true, false, '')`,
      ],
    },
    {
      name: 'search_path pointed at the victim',
      sql: ({ victim }) => [
        `select set_config('search_path', '${victim.schema}, public', true)`,
        `select * from ${victim.table}`,
        `set search_path = ${victim.schema}`,
        `select * from ${victim.table}`,
      ],
    },
    {
      // A wall that is asked only for rows that fit is not asked for nobody's, and then nobody misses the pass: whether it was
      // asked would tell what fits. Where there are no rows at all there is nothing to ask.
      name: 'conditions that cost less than the wall',
      sql: ({ victim }) => [
        `select set_config(name, 'off', true) from unnest('{enable_indexscan,enable_indexonlyscan,enable_bitmapscan}'::text[]) name`,
        `select set_config('tenancy.pass', '', true)`,
        `select told from (select 'asked, without the wall, for ' || count(*) as told from ${victim.relation}
          where tenant_id = any ('{00000000-0000-4000-8000-00000000000a}')) s where current_setting('tenancy.pass', true) = ''`,
      ],
      // Where the logins differ it is a table of the attacker's own that has the same name.
      betrays: ({ own, victim }) =>
        own.login === victim.login && victim.hasRows ? /^asked, without the wall/m : /(?!)/,
    },
    {
      // It runs at the first row that the conditions in front of it let through: of that row it tells all that they ask.
      name: 'a subquery that runs at a row before the wall does',
      sql: ({ victim }) => [
        `select set_config(name, 'off', true) from unnest('{enable_indexscan,enable_indexonlyscan,enable_bitmapscan}'::text[]) name`,
        `select (select count(*) from ${victim.relation} where case when tenant_id = any ('{${victim.tenant}}')
           then (select set_config('tests.told', 'run at a row of the ' || 'victim', true) is null) end), current_setting('tests.told', true)`,
      ],
      betrays: () => /run at a row of the victim/,
    },
    {
      name: 'row security switched off',
      sql: ({ victim }) => [
        'set row_security = off',
        `select * from ${victim.relation}`,
        `select v.* from (select set_config('row_security', 'off', true) offset 0) s, ${victim.relation} v`,
      ],
    },
    {
      name: 'built-in functions that might see a row before the wall does',
      sql: (aim) => [
        `select * from ${aim.victim.relation} v where (v::text)::int > 0`,
        `select * from ${aim.victim.relation} v where 1 / (length(v::text) - length(v::text)) > 0`,
        `select * from ${aim.victim.relation} v where set_config('tenancy.seen', v::text, false) <> ''`,
        `select current_setting('tenancy.seen', true)`,
        `select * from ${aim.victim.relation} v where pg_notify('seen', left(v::text, 100)) is null`,
      ],
    },
    {
      name: 'joins, semi-joins, windows and set operations against its own rows',
      sql: ({ own, victim }) => [
        `select v.* from ${own.relation} o full join ${victim.relation} v on true`,
        `select v.*, count(*) over () from ${victim.relation} v where exists (select from ${victim.relation} w where w.tenant_id = v.tenant_id)`,
        `select * from ${victim.relation} tablesample system (100)`,
        `with recursive r as (select v.*, 1 as n from ${victim.relation} v union all select r.* from r where n < 1) select * from r`,
      ],
    },
    {
      name: 'cursors, also one that outlives the transaction',
      sql: ({ victim }) => [
        `declare c cursor for select * from ${victim.relation}`,
        'fetch all from c',
        `declare h cursor with hold for select * from ${victim.relation}`,
        'commit',
        'fetch all from h',
        'select * from pg_cursors',
      ],
    },
    {
      name: 'a plan prepared as itself, executed as the other',
      sql: ({ victim }) => [
        `prepare p as select * from ${victim.relation}`,
        'execute p',
        `select set_config('tenancy.tenant', '${victim.tenant}', true)`,
        'execute p',
        'select * from pg_prepared_statements',
      ],
    },
    {
      name: 'partitions and children of its tables',
      sql: ({ victim }) => [
        `select * from ${victim.relation.replace(/"$/, '_1"')}`,
        `do $$ declare c regclass; begin for c in select inhrelid::regclass from pg_inherits loop execute format('select * from %s', c); end loop; end $$`,
      ],
    },
    {
      name: 'sequences',
      sql: ({ victim }) => [
        'select lastval()',
        `select * from pg_sequences`,
        `select s.oid::regclass, nextval(s.oid::regclass) from pg_class s where relkind = 'S' and relnamespace <> 'pg_toast'::regnamespace`,
        `select currval(pg_get_serial_sequence(${literal(victim.relation)}, 'tenant_id'))`,
      ],
    },
  ],
};
