import { type Aim, quoted, type Theme } from '../attack.ts';

const of = ({ victim }: Aim) => `tenant_id = '${victim.tenant}'`;
/** A complete row from JSON: one of the victim's, or one that only claims to be. */
const rowOf = (aim: Aim, relation: string, change = '{}') =>
  `select (jsonb_populate_record(null::${relation}, ${aim.victim.row}::jsonb || ${quoted(change)}::jsonb)).*`;

/** Reading past the wall by other ways of naming rows. */
export const reading: Theme = {
  title: 'Reading rows',
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
      name: 'schema and table exports as XML',
      sql: ({ victim }) => [
        `select table_to_xml(${quoted(victim.relation)}, true, false, '')`,
        `select schema_to_xml('${victim.schema}', true, false, '')`,
        `select database_to_xml(true, false, '')`,
        `select query_to_xml_and_xmlschema(${quoted(`select * from ${victim.relation}`)}, true, false, '')`,
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
        `select currval(pg_get_serial_sequence(${quoted(victim.relation)}, 'tenant_id'))`,
      ],
    },
  ],
};

/** Changing, planting, or asking what is there by trying to change it. */
export const writing: Theme = {
  title: 'Changing and probing rows',
  attacks: [
    {
      name: 'UPDATE and DELETE by the tenant id',
      sql: (aim) => [
        `delete from ${aim.victim.relation} where ${of(aim)}`,
        `update ${aim.victim.relation} v set tenant_id = tenant_id where ${of(aim)} returning v.*`,
        `update ${aim.victim.relation} v set tenant_id = '${aim.own.tenant}' where ${of(aim)} returning v.*`,
        `delete from ${aim.victim.relation} v using pg_class returning v.*`,
      ],
    },
    {
      name: 'changes inside a CTE of a reading statement',
      sql: (aim) => [
        `with gone as (delete from ${aim.victim.relation} v where ${of(aim)} returning v.*) select * from gone`,
        `with x as materialized (select set_config('tenancy.tenant', '${aim.victim.tenant}', true)), u as (update ${aim.victim.relation} v set tenant_id = tenant_id returning v.*) select * from x, u`,
      ],
    },
    {
      name: 'MERGE over the victim',
      sql: ({ own, victim }) => [
        `merge into ${victim.relation} v using (select '${victim.tenant}'::uuid as t) s on v.tenant_id = s.t when matched then delete`,
        `merge into ${victim.relation} v using (select '${victim.tenant}'::uuid as t) s on v.tenant_id = s.t when matched then update set tenant_id = '${own.tenant}' returning merge_action(), v.*`,
      ],
    },
    {
      name: 'a row planted for the victim',
      sql: (aim) => [
        `insert into ${aim.victim.relation} (tenant_id) values ('${aim.victim.tenant}')`,
        `insert into ${aim.victim.relation} ${rowOf(aim, aim.victim.relation)}`,
        `update ${aim.victim.relation} set tenant_id = '${aim.victim.tenant}'`,
        `insert into ${aim.victim.relation} default values`,
      ],
    },
    {
      name: "a row of the victim's planted among its own",
      sql: (aim) => [
        `insert into ${aim.own.relation} ${rowOf(aim, aim.own.relation)}`,
        `update ${aim.own.relation} set tenant_id = '${aim.victim.tenant}'`,
        `select 'planted ' || count(*) as outcome from ${aim.own.relation} where ${of(aim)} having count(*) > 0`,
      ],
      betrays: () => /planted \d/,
    },
    {
      name: 'keys as an oracle: does this row exist?',
      sql: (aim) => [
        `insert into ${aim.victim.relation} ${rowOf(aim, aim.victim.relation)}`,
        `insert into ${aim.victim.relation} ${rowOf(aim, aim.victim.relation)} on conflict do nothing returning 'fresh'`,
        `insert into ${aim.victim.relation} ${rowOf(aim, aim.victim.relation)} on conflict do nothing`,
        `with s as materialized (select set_config('tenancy.tenant', '${aim.victim.tenant}', true)) insert into ${aim.victim.relation} ${rowOf(aim, aim.victim.relation)} from s`,
      ],
      // A unique or foreign key that answers has looked at the victim's rows.
      betrays: () => /\b(23505|23503|23P01)\b/,
    },
    {
      name: "the victim's keys under its own name",
      sql: (aim) => [
        `insert into ${aim.victim.relation} ${rowOf(aim, aim.victim.relation, `{"tenant_id": "${aim.own.tenant}"}`)}`,
        `insert into ${aim.own.relation} ${rowOf(aim, aim.own.relation, `{"tenant_id": "${aim.own.tenant}"}`)} on conflict do nothing`,
      ],
      betrays: () => /\b(23505|23P01)\b/,
    },
    {
      name: 'COPY from the client',
      sql: ({ victim }) => [`copy ${victim.relation} from stdin`],
    },
    {
      name: 'capture switched on by hand',
      sql: ({ own, victim }) => [
        `select set_config('tenancy.capture', '1', true)`,
        `update ${own.relation} set tenant_id = tenant_id`,
        'select * from tenancy.changes',
        `insert into tenancy.changes (tenant_id, schema_name, table_name, key) values ('${victim.tenant}', 's', 't', '{}')`,
      ],
    },
    {
      name: 'the runtime and its records',
      sql: ({ own, victim }) => [
        'select * from tenancy.keys',
        'select * from tenancy.homes',
        'select * from tenancy._migrations',
        `update tenancy.homes set login = '${own.login}' where tenant_id = '${victim.tenant}'`,
        `update tenancy.homes set state = 'suspended'`,
        'delete from tenancy.keys',
        `select * from ${victim.schema}._migrations`,
        `delete from ${victim.schema}._migrations`,
        'select * from catalog.tenants',
        `select * from catalog.resolve('${victim.tenant}', 'oidc:x')`,
      ],
    },
  ],
};
