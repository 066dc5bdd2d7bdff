import { sql } from '../../../functions/lib/database/sql.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import type { Strategy } from '../../../functions/lib/tenant/tenant.ts';
import type { World } from '../../support/world.ts';

export const ways: [Strategy, Strategy][] = [
  ['rls', 'schema'],
  ['schema', 'rls'],
  ['schema', 'database'],
  ['database', 'rls'],
];

/** A value of every type of PostgreSQL that a column can have. */
export const values: Readonly<Record<string, string>> = {
  aclitem: 'tenancy_owner=r/tenancy_owner',
  bit: '1',
  bool: 't',
  box: '(2,3),(1e-300,1)',
  bpchar: 'padded  ',
  bytea: '\\x005c0a0d',
  char: 'c',
  cid: '7',
  cidr: '10.1.0.0/16',
  circle: '<(1,2),3.25>',
  date: '4713-01-01 BC',
  daterange: '[2026-01-01,)',
  datemultirange: '{(,2026-01-01),[2026-02-01,2026-03-01)}',
  float4: '1.17549435e-38',
  float8: '2.2250738585072014e-308',
  inet: '::ffff:10.1.2.3/120',
  int2: '-32768',
  int2vector: '1 2 3',
  int4: '-2147483648',
  int4multirange: '{[1,3),[5,8)}',
  int4range: 'empty',
  int8: '-9223372036854775808',
  int8multirange: '{}',
  int8range: '(,7)',
  interval: '-178000000 years 11 mons -3 days -00:00:00.000001',
  json: '{"a":  1, "a": "\\u00e9\\n"}',
  jsonb: '[null, 1.10, "\\"", {"b": {}}]',
  jsonpath: '$."a"[*]?(@ > 1)',
  line: '{1,-1,0.1}',
  lseg: '[(0,0),(0.1,0.2)]',
  macaddr: '08:00:2b:01:02:03',
  macaddr8: '08:00:2b:01:02:03:04:05',
  money: '-92233720368547758.08',
  name: 'a "name"',
  numeric: '-0.00000000000000000000000000000000000001',
  nummultirange: '{[1.10,2.2],(3,)}',
  numrange: '[1.10,2.2]',
  oid: '4294967295',
  oidvector: '1 4294967295',
  path: '[(0,0),(1,1),(2,0.1)]',
  pg_lsn: '16/B374D848',
  pg_snapshot: '10:20:10,14,15',
  point: '(-0,NaN)',
  polygon: '((0,0),(1,1),(2,0.1))',
  refcursor: 'a cursor',
  regclass: 'nodes',
  regcollation: '"C"',
  regconfig: 'simple',
  regdictionary: 'simple',
  regnamespace: 'pg_catalog',
  regoper: 'pg_catalog.||/',
  regoperator: '+(integer,integer)',
  regproc: 'pg_catalog.now',
  regprocedure: 'abs(integer)',
  regrole: 'tenancy_owner',
  regtype: 'mood',
  text: 'tab\t back\\\\slash, \\. \r\n “quotes” and 🐘',
  tid: '(42,7)',
  time: '24:00:00',
  timestamp: '294276-12-31 23:59:59.999999',
  timestamptz: '4714-11-24 00:00:00+00 BC',
  timetz: '23:59:59.999999-15:59:59',
  tsmultirange: '{["2026-01-01 00:00:00","2026-01-02 00:00:00")}',
  tsquery: "'a':*A & !( 'b' <2> 'it''s' )",
  tsrange: '["2026-01-01 00:00:00",infinity]',
  tstzmultirange: '{["2026-01-01 00:00:00+00","2026-01-02 00:00:00+00")}',
  tstzrange: '(,"2026-01-01 00:00:00+00")',
  tsvector: "'a':1A,2 'it''s':3",
  txid_snapshot: '10:20:10,14,15',
  uuid: '6f1b4a52-0000-4000-8000-000000000000',
  varbit: '10101',
  varchar: 'é',
  xid: '4294967295',
  xid8: '18446744073709551615',
  xml: '<?xml version="1.0"?><a b="1">&amp;<!-- c --></a>',
};
const columnOf = (type: string) =>
  `"${type} column" pg_catalog."${type}", "${type} list" pg_catalog."${type}"[]`;

/** Tables of every shape that a move could stumble over, changed at every stage of it. */
export const shapes = parseMigration(
  '9100-shapes.sql',
  `create type mood as enum ('calm', 'it''s "odd"');
   create table nodes (
     tenant_id uuid not null, node_id uuid not null default gen_random_uuid(), parent_id uuid, head_id uuid, label text not null,
     primary key (tenant_id, node_id), unique (tenant_id, label),
     foreign key (tenant_id, parent_id) references nodes (tenant_id, node_id) on delete cascade
   );
   create index nodes_label on nodes (label, tenant_id) where head_id is null;
   create table heads (
     tenant_id uuid not null, head_id uuid not null default gen_random_uuid(), node_id uuid not null,
     primary key (tenant_id, head_id), foreign key (tenant_id, node_id) references nodes (tenant_id, node_id) on delete restrict
   );
   alter table nodes add foreign key (tenant_id, head_id) references heads (tenant_id, head_id) on delete set null (head_id);
   create table kinds (
     tenant_id uuid not null, code numeric(10, 2) not null, "at ""time" timestamptz not null, "Name" varchar(20) collate "C" not null,
     drawn bigint generated always as identity, n integer, doubled integer generated always as (n * 2) stored,
     num numeric, f4 real, f8 double precision, day date, span interval, bytes bytea, j json, jb jsonb, words text[], grid integer[][],
     around int4range, many datemultirange, mood mood, address inet, bits bit varying, doc xml, spot point, found tsvector, price money, padded char(5), yes boolean,
     primary key (tenant_id, code, "at ""time", "Name")
   );
   create domain percentage as numeric(5, 2) check (value between 0 and 100);
   create type place as (street text, position point, moods mood[]);
   create table everything (
     tenant_id uuid not null, everything_id integer not null, primary key (tenant_id, everything_id),
     share percentage, shares percentage[], home place, homes place[],
     ${Object.keys(values).map(columnOf).join(', ')}
   );
   create table events (
     tenant_id uuid not null, day date not null, n bigint not null, node_id uuid, primary key (tenant_id, day, n), unique (tenant_id, n, day),
     foreign key (tenant_id, node_id) references nodes (tenant_id, node_id)
   ) partition by range (day);
   create table events_old partition of events for values from (minvalue) to ('2026-01-01');
   create table events_new partition of events for values from ('2026-01-01') to (maxvalue);`,
);

/** Rows in all of them. */
export async function fill(db: ReturnType<World['database']>): Promise<void> {
  const all = Object.entries(values);
  const columns = all.flatMap(([type]) => [`"${type} column"`, `"${type} list"`]).join(', ');
  await db.query({
    text: `insert into everything (everything_id, share, shares, home, homes, ${columns})
           values (1, 12.5, '{0,100.00}', row('a, "b"', '(1,2)', array['calm']::mood[]), array[row('', null, '{}')]::place[],
                   ${all.map(([type], index) => `$${index + 1}::text::pg_catalog."${type}", array[null, $${index + 1}::text::pg_catalog."${type}"]`).join(', ')}),
                  (2, null, null, null, null, ${all.map(() => 'null, null').join(', ')})`,
    values: all.map(([, value]) => value),
  });
  await db.query(sql`insert into nodes (label) select 'n' || n from generate_series(1, 40) n`);
  await db.query(
    sql`update nodes set parent_id = (select node_id from nodes p where p.label = 'n' || (substr(nodes.label, 2)::integer / 2)) where label <> 'n1'`,
  );
  await db.query(
    sql`insert into heads (node_id) select node_id from nodes where label in ('n38', 'n39', 'n40')`,
  );
  await db.query(
    sql`update nodes set head_id = (select h.head_id from heads h join nodes t on t.node_id = h.node_id where t.label = 'n40') where label in ('n2', 'n40')`,
  );
  await db.query(sql`
    insert into kinds (code, "at ""time", "Name", n, num, f4, f8, day, span, bytes, j, jb, words, grid, around, many, mood, address, bits, doc, spot, found, price, padded, yes)
    select n + 0.5, timestamptz '2026-03-29 01:30:00.123456+00' + n * interval '1 hour', E'tab\t\\\\.' || n, n, 'NaN', 'infinity', 0.1 + 0.2, '-infinity', '1 mon -3 days 00:00:01.5',
           '\\x00ff5c27', '{"a":  1}', 'null', array['', null, 'NULL', E'"\\n'], array[[1, 2], [3, null]], '[1,)', '{[2026-01-01,2026-02-01)}', 'it''s "odd"', '::1/64', B'10101', '<a>&amp;</a>', '(1e-300,2)', 'a:1A b', '12.34', 'ab', n % 2 = 0
      from generate_series(1, 30) n`);
  await db.query(sql`insert into kinds (code, "at ""time", "Name") values (-1, 'infinity', '')`);
  await db.query(
    sql`insert into events (day, n, node_id) select date '2025-12-25' + n, n, (select node_id from nodes where label = 'n' || n) from generate_series(1, 20) n`,
  );
}
