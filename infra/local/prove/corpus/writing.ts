import { literal } from '../../../../functions/lib/database/connect.ts';
import type { Aim, Theme } from '../attack.ts';

const of = ({ victim }: Aim) => `tenant_id = '${victim.tenant}'`;
/** Inserts a complete row: one of the victim's, or one that only claims to be. `change`: what differs, in JSON. */
const insertRow = (aim: Aim, relation: string, change = '{}') =>
  `insert into ${relation} (${aim.victim.columns.join(', ')})
   select ${aim.victim.columns.map((column) => `r.${column}`).join(', ')}
     from jsonb_populate_record(null::${relation}, ${aim.victim.row}::jsonb || ${literal(change)}::jsonb) r`;

/** Changing, planting, or asking what is there by trying to change it. */
export const writing: Theme = {
  title: 'Changing and probing rows',
  aboutTables: true,
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
        `merge into ${victim.relation} v using (select where false) s on false when not matched by source and v.tenant_id = '${victim.tenant}' then delete returning v.*`,
        `merge into ${victim.relation} v using (select where false) s on false when not matched by source and v.tenant_id = '${victim.tenant}' then update set tenant_id = '${own.tenant}' returning v.*`,
      ],
    },
    {
      name: 'a row planted for the victim',
      sql: (aim) => [
        `insert into ${aim.victim.relation} (tenant_id) values ('${aim.victim.tenant}')`,
        insertRow(aim, aim.victim.relation),
        `update ${aim.victim.relation} set tenant_id = '${aim.victim.tenant}'`,
        `insert into ${aim.victim.relation} default values`,
      ],
    },
    {
      name: "a row of the victim's planted among its own",
      sql: (aim) => [
        insertRow(aim, aim.own.relation),
        `update ${aim.own.relation} set tenant_id = '${aim.victim.tenant}'`,
        `select 'planted ' || count(*) as outcome from ${aim.own.relation} where ${of(aim)} having count(*) > 0`,
      ],
      betrays: () => /planted \d/,
    },
    {
      name: 'keys as an oracle: does this row exist?',
      sql: (aim) => [
        insertRow(aim, aim.victim.relation),
        `${insertRow(aim, aim.victim.relation)} on conflict do nothing returning 'fresh'`,
        `${insertRow(aim, aim.victim.relation)} on conflict do nothing`,
        `${insertRow(aim, aim.victim.relation)} where set_config('tenancy.tenant', '${aim.victim.tenant}', true) is not null`,
      ],
      // A unique or foreign key that answers has looked at the victim's rows.
      betrays: () => /\b(23505|23503|23P01)\b/,
    },
    {
      name: "the victim's keys under its own name",
      sql: (aim) => [
        // Rows of its own that have such a key by chance would answer in the victim's place.
        ...aim.victim.keys.map(
          (columns) =>
            `delete from ${aim.own.relation} o using jsonb_populate_record(null::${aim.own.relation}, ${aim.victim.row}::jsonb) r
              where o.tenant_id = '${aim.own.tenant}' and ${columns.map((column) => `o.${column} = r.${column}`).join(' and ')}`,
        ),
        insertRow(aim, aim.victim.relation, `{"tenant_id": "${aim.own.tenant}"}`),
        // Its own copies shall not be taken for the victim's rows afterwards.
        `delete from ${aim.own.relation} o where o.tenant_id = '${aim.own.tenant}'
            and (select count(*) from jsonb_each(to_jsonb(o)) mine join jsonb_each(${aim.victim.row}::jsonb) theirs using (key, value))
              > least(2, (select count(*) - 2 from jsonb_object_keys(to_jsonb(o))))`,
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
