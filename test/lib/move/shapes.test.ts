import { isDeepStrictEqual } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sql } from '../../../functions/lib/database/sql.ts';
import { moving } from '../../../functions/lib/lifecycle/move-turn.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { digest } from '../../../functions/lib/move/diff.ts';
import { fence } from '../../../functions/lib/move/hold.ts';
import {
  areTooMany,
  carryLast,
  type LastChange,
  lastChanges,
} from '../../../functions/lib/move/last-changes.ts';
import { reading } from '../../../functions/lib/move/side.ts';
import type { Strategy } from '../../../functions/lib/tenant/tenant.ts';
import { limits, startWorld, type TestTenant, type World } from '../../support/world.ts';
import { begin, moverOf, step } from '../lifecycle/move.support.ts';

/** A value of every type of PostgreSQL that a column can have. */
const values: Readonly<Record<string, string>> = {
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
const shapes = parseMigration(
  '9100-shapes.sql',
  `create type mood as enum ('calm', 'it''s "odd"');
   create table nodes (
     tenant_id uuid not null, node_id uuid not null default gen_random_uuid(), parent_id uuid, head_id uuid, label text not null,
     primary key (tenant_id, node_id), unique (tenant_id, label),
     foreign key (tenant_id, parent_id) references nodes (tenant_id, node_id) on delete cascade
   );
   create index nodes_label on nodes (label) where head_id is null;
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

let world: World;
beforeAll(async () => {
  world = await startWorld({ migrations: [shapes] });
}, 120_000);
afterAll(() => world?.close());

async function fill(tenant: TestTenant) {
  const db = world.database(tenant);
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

/** Keys exchanged, rows moved to another partition, key columns changed, trees cut, rows pointed elsewhere before theirs is gone. */
async function change(tenant: TestTenant, round: number) {
  const db = world.database(tenant);
  await db.query(sql`update nodes set label = 'away' where label = 'n20'`);
  await db.query(sql`update nodes set label = 'n20' where label = 'n21'`);
  await db.query(sql`update nodes set label = 'n21' where label = 'away'`);
  await db.query(sql`update nodes set label = label where label in ('n1', 'n2', 'n3')`);
  await db.query(
    sql`delete from heads where node_id = (select node_id from nodes where label = ${`n${37 + round}`})`,
  );
  await db.query(sql`delete from nodes where label = ${`n${37 + round}`}`);
  await db.query(sql`update events set node_id = null where n in (6, 12, 13)`);
  await db.query(sql`update events set day = day + 7 where n % 2 = 1`);
  await db.query(sql`update everything set everything_id = everything_id + 10`);
  await db.query(sql`update kinds set code = code + 100, num = 'infinity' where n = ${round}`);
  await db.query(sql`update kinds set "Name" = "Name" || '!' where n = ${10 + round}`);
  await db.query(
    sql`insert into nodes (label, parent_id) select ${`new ${round}`}, node_id from nodes where label = 'n2'`,
  );
  await db.query(
    sql`insert into kinds (code, "at ""time", "Name", n) values (${-10 - round}, now(), 'late', ${round})`,
  );
}

/** Where the tenant lives now. */
async function here(tenant: TestTenant, mode: 'r' | 'w') {
  access ??= world.access();
  return access.database(tenant.principal, await access.resolve(tenant.principal), limits(mode));
}
let access: ReturnType<World['access']> | undefined;

async function content(tenant: TestTenant): Promise<Record<string, string[]>> {
  const db = await here(tenant, 'r');
  const all: Record<string, string[]> = {};
  for (const table of ['nodes', 'heads', 'kinds', 'everything', 'events']) {
    const { rows } = await db.query<{ row: string }>(
      `select concat(t, tableoid::regclass) as row from ${table} t order by 1`,
    );
    all[table] = rows.map(({ row }) => row);
  }
  return all;
}

const ways: [Strategy, Strategy][] = [
  ['rls', 'schema'],
  ['schema', 'rls'],
  ['schema', 'database'],
  ['database', 'rls'],
];

describe.each(ways)('from %s to %s', (from, to) => {
  it('every type, generated and identity columns, circles, cascades and partitions, there and back', async () => {
    const tenant = await world.addTenant(from);
    await fill(tenant);
    const operation = await begin(world, tenant.slug, to);
    await step(world, operation, 'prepare');
    await step(world, operation, 'capture');
    await change(tenant, 1);
    await step(world, operation, 'copy');
    await change(tenant, 2);
    await step(world, operation, 'land');
    await change(tenant, 3);
    const before = await content(tenant);
    expect(before.kinds).toHaveLength(34);
    await step(world, operation, 'switchOver');
    expect(await content(tenant)).toEqual(before);

    // In the new home too: identities go on, every key is enforced, and what is deleted takes others with it.
    const db = await here(tenant, 'w');
    const drawn = await db.query(
      sql`insert into kinds (code, "at ""time", "Name") values (-2, now(), 'new') returning drawn > (select max(k.drawn) from kinds k) as higher`,
    );
    expect(drawn.rows).toEqual([{ higher: true }]);
    await expect(db.query(sql`insert into nodes (label) values ('n1')`)).rejects.toMatchObject({
      sqlstate: '23505',
    });
    await expect(
      db.query(sql`insert into events (day, n, node_id) values ('2026-01-01', 99, gen_random_uuid())`),
    ).rejects.toMatchObject({ sqlstate: '23503' });
    await db.query(sql`update events set node_id = null`);
    await db.query(sql`delete from heads`);
    await db.query(sql`delete from nodes where label = 'n2'`);
    const written = await content(tenant);
    expect(written.nodes!.length).toBeLessThan(before.nodes!.length - 5);
    await step(world, operation, 'reverse');
    expect(await content(tenant)).toEqual(written);
    await step(world, operation, 'complete');
    expect(await content(tenant)).toEqual(written);
  }, 60_000);
});

describe.each(ways)('the last changes from %s to %s', (from, to) => {
  const atTheFence = async (
    tenant: TestTenant,
    last: (db: Awaited<ReturnType<typeof here>>) => Promise<unknown>,
  ) => {
    const operation = await begin(world, tenant.slug, to);
    for (const name of ['prepare', 'capture', 'copy', 'land'] as const) await step(world, operation, name);
    try {
      return await world.asProvisioner('catalog', (catalog) =>
        moving(moverOf(world), catalog, operation, async (sides) => {
          await last(world.database(tenant));
          const { rows, isKept } = await fence<LastChange>(sides.source, lastChanges(sides));
          await isKept;
          const { epoch } = sides.source.home;
          const isCarried = await carryLast(sides, rows, { capturing: true, epoch: epoch + 1 });
          const [before, after] = [sides.source, sides.target].map((side) =>
            reading(side, async () => [...(await digest(side, sides.tables)).values()]),
          );
          return { rows, isCarried, isSame: isDeepStrictEqual(await before, await after) };
        }),
      );
    } finally {
      await step(world, operation, 'cancel', { failedStep: 'switchOver' });
    }
  };

  it('of every type, with exchanged keys, go in one piece', async () => {
    const tenant = await world.addTenant(from);
    await fill(tenant);
    const { rows, isCarried, isSame } = await atTheFence(tenant, async (db) => {
      await db.query(sql`update everything set everything_id = everything_id + 10`);
      await db.query(sql`update everything set share = 1.5`);
      await db.query(sql`update kinds set code = code + 100, num = 'infinity' where n < 9`);
      await db.query(sql`delete from kinds where n > 20`);
      await db.query(
        sql`insert into kinds (code, "at ""time", "Name") values (-7, 'infinity', E'\\ "(,)'), (-8, now(), '')`,
      );
      await db.query(sql`update events set day = day + 7 where n % 2 = 1`);
    });
    expect(rows.length).toBeGreaterThan(30);
    expect({ isCarried, isSame }).toEqual({ isCarried: true, isSame: true });
  });

  it('that would take others with them, or are long, are left to the longer way', async () => {
    const tenant = await world.addTenant(from);
    await fill(tenant);
    const cascading = await atTheFence(tenant, (db) =>
      db.query(sql`update nodes set label = 'other' where label = 'n3'`),
    );
    expect(cascading).toMatchObject({ isCarried: false, isSame: false });
    const long = await atTheFence(tenant, (db) =>
      db.query(sql`update kinds set "words" = array[repeat('x', 20000)] where n = 3`),
    );
    expect(long).toMatchObject({ isCarried: false, isSame: false });
  });

  it('of which there are none, or too many', async () => {
    const tenant = await world.addTenant(from);
    await fill(tenant);
    expect(await atTheFence(tenant, async () => {})).toMatchObject({
      rows: [],
      isCarried: true,
      isSame: true,
    });
    const operation = await begin(world, tenant.slug, to);
    for (const name of ['prepare', 'capture', 'copy', 'land'] as const) await step(world, operation, name);
    await world
      .database(tenant)
      .query(sql`insert into nodes (label) select 'many ' || n from generate_series(1, 1001) n`);
    const found = await world.asProvisioner('catalog', (catalog) =>
      moving(
        moverOf(world),
        catalog,
        operation,
        async (sides) => (await fence<LastChange>(sides.source, lastChanges(sides))).rows,
      ),
    );
    expect(areTooMany(found)).toBe(true);
    // What a fence has left is where the next attempt begins.
    await step(world, operation, 'switchOver');
    const { rows } = await (await here(tenant, 'r')).query(sql`select count(*)::int as n from nodes`);
    expect(rows).toEqual([{ n: 1041 }]);
  });
});

it('there is no type of PostgreSQL that is not among them', async () => {
  const { rows } = await world.asProvisioner(world.tenants.rls.a, (connection) =>
    connection.query(
      // Not the arrays, which each has, and not those that have no text to be read from.
      `select typname from pg_type where typnamespace = 'pg_catalog'::regnamespace and typtype in ('b', 'r', 'm') and typcategory <> 'A' or typname ~ '^(int2|oid)vector$'
       except select unnest(array['gtsvector', 'pg_brin_bloom_summary', 'pg_brin_minmax_multi_summary', 'pg_dependencies', 'pg_mcv_list', 'pg_ndistinct', 'pg_node_tree'])`,
    ),
  );
  expect(rows.map(({ typname }) => typname).sort()).toEqual(Object.keys(values).sort());
});

it('an identity value that nobody has drawn ends the move', async () => {
  const tenant = await world.addTenant('schema');
  await world
    .database(tenant)
    .query(
      sql`insert into kinds (code, "at ""time", "Name", drawn) overriding system value values (1, now(), 'hostile', 9223372036854775807)`,
    );
  const operation = await begin(world, tenant.slug, 'rls');
  for (const name of ['prepare', 'capture', 'copy', 'land'] as const) await step(world, operation, name);
  await expect(step(world, operation, 'switchOver')).rejects.toMatchObject({
    code: 'move_refused',
    message: expect.stringContaining('kinds.drawn'),
  });
  await step(world, operation, 'cancel', { failedStep: 'switchOver' });
});
