import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sql } from '../../../functions/lib/database/sql.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { limits, startWorld, type TestTenant, type World } from '../../support/world.ts';
import { begin, currentDatabase, homeOf, step } from '../lifecycle/move.support.ts';
import { ways } from './shapes.support.ts';

/** Of each type of a key: what is there, what is changed, what becomes the other's successor, and that. */
const types: Readonly<Record<string, readonly [string, string, string, string]>> = {
  'timestamptz(0)': ['-infinity', '4714-11-24 00:00:00+00 BC', '0044-03-15 12:00:00+00 BC', 'infinity'],
  interval: [
    '1 mon -3 days 00:00:01.5',
    '-178000000 years 11 mons -3 days -00:00:00.000001',
    '-1 days +02:03:00',
    '1 year -2 mons',
  ],
  numeric: ['NaN', '1.00', '1e-30', '1.0000000001'],
  float8: ['NaN', '-0', '0.1', '2.2250738585072014e-308'],
  money: ['1.00', '-92233720368547758.08', '1234567.89', '12.34'],
  'bit(3)': ['101', '000', '111', '010'],
  'char(5)': ['a', 'b  ', '', 'é'],
  '"char"': ['c', 'd', '', 'e'],
  text: ['tab\t', 'nl\n\\.', "q'uote\\", '🐘\r"'],
  bytea: ['\\x00', '\\x', '\\x5c0a', '\\xff'],
  inet: ['10.0.0.1', '10.0.0.1/8', '::1', '::ffff:10.1.2.3/120'],
  tstzrange: ['(,infinity)', '[-infinity,2026-01-01 00:00:00+00]', '[,]', 'empty'],
  int4multirange: ['{}', '{[1,3),[5,8)}', '{(,)}', '{[7,9)}'],
  tsvector: ["'a':1A", "'b'", "'it''s':3", ''],
  jsonb: ['null', '{"a": [null]}', '"x"', '1.0'],
  mood: ['calm', 'it\'s "odd"', 'x', 'y'],
  place: ['("a, b",calm)', '(,)', '("",x)', '(a,y)'],
  short: ['a', 'b', 'c', 'd'],
  'text[]': ['{NULL,"NULL"}', '{""}', '{"a\\"b"}', '{x}'],
  'int4[]': ['[0:1]={1,2}', '[2:2]={7}', '{{1,2},{3,4}}', '[-1:-1]={9}'],
  oidvector: ['1 2', '3', '4 5', '6'],
  // Of text, under a collation that takes some texts for the same.
  named: ['Abc', 'DEF', 'ghi', 'GHi2'],
};
const names = Object.keys(types);
const all = names.map((_, index) => `keys_${index}`);

/** What a session's own functions may set before a row is changed: keys are in the same text nevertheless. */
const settings = `select set_config('datestyle', 'SQL, DMY', true), set_config('bytea_output', 'escape', true),
  set_config('extra_float_digits', '-15', true), set_config('timezone', 'Asia/Tokyo', true)`;

let world: World;
beforeAll(async () => {
  const tables = names.map(
    (type, index) =>
      `create table keys_${index} (tenant_id uuid not null, k ${type === 'named' ? 'text collate named' : type} not null, n integer not null default 0, primary key (tenant_id, k));`,
  );
  const migration = parseMigration(
    '9502-keys.sql',
    `create type mood as enum ('calm', 'it''s "odd"', 'x', 'y');
     create type place as (street text, mood mood);
     create domain short as text check (length(value) < 5);
     create domain filled as text not null check (value is not null and value <> '');
     create collation named (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
     ${tables.join('\n')}
     create table documents (
       tenant_id uuid not null, document_id integer not null, content json, title filled, n integer not null default 0,
       primary key (tenant_id, document_id)
     );`,
  );
  world = await startWorld({ migrations: [migration] });
}, 120_000);
afterAll(() => world?.close());

async function content(tenant: TestTenant, tables: readonly string[]): Promise<unknown[][]> {
  const db = await currentDatabase(world, tenant, limits('r'));
  const found: unknown[][] = [];
  for (const table of tables) {
    const { rows } = await db.query({
      text: `select concat(t) as row from ${table} t order by 1`,
      values: [],
    });
    found.push(rows);
  }
  return found;
}

async function move(
  tenant: TestTenant,
  to: (typeof ways)[number][1],
  change: (round: number) => Promise<unknown>,
) {
  const operation = await begin(world, tenant.slug, to);
  for (const [round, name] of (['prepare', 'capture', 'copy', 'land'] as const).entries()) {
    await step(world, operation, name);
    await change(round);
  }
  return operation;
}

describe.each(ways)('a move from %s to %s', (from, to) => {
  it('finds changed rows by keys of every kind', async () => {
    const tenant = await world.addTenant(from);
    const db = world.database(tenant, limits('w', { deadline: Date.now() + 60_000 }));
    const typeOf = (type: string) => (type === 'named' ? 'text' : type);
    for (const [index, type] of names.entries()) {
      const [stays, changed, renamed] = types[type]!;
      await db.query({
        text: `insert into keys_${index} (k) select unnest($1::text[])::${typeOf(type)}`,
        values: [[stays, changed, renamed]],
      });
    }
    const operation = await move(tenant, to, async (round) => {
      if (round === 0) return;
      await db.transaction(async (tx) => {
        await tx.query({ text: settings, values: [] });
        for (const [index, type] of names.entries()) {
          const [stays, changed, renamed, successor] = types[type]!;
          const run = (text: string, values: string[]) => tx.query({ text, values });
          const key = (place: number) => `$${place}::text::${typeOf(type)}`;
          await run(`update keys_${index} set n = n + 1 where k = ${key(1)}`, [changed]);
          if (round === 2)
            await run(`update keys_${index} set k = ${key(1)} where k = ${key(2)}`, [successor, renamed]);
          if (round === 3) await run(`delete from keys_${index} where k = ${key(1)}`, [stays]);
        }
      });
    });
    const before = await content(tenant, all);
    expect(before.map(({ length }) => length)).toEqual(names.map(() => 2));
    await step(world, operation, 'switchOver');
    expect((await homeOf(world, tenant)).strategy).toBe(to);
    expect(await content(tenant, all)).toEqual(before);
    await step(world, operation, 'complete');
  }, 60_000);

  it('is in nobody’s way who writes what JSON could not say, or what may not be null', async () => {
    const tenant = await world.addTenant(from);
    const db = world.database(tenant, limits('w'));
    await db.query({
      text: `insert into documents (document_id, content, title) values (1, $1::text::json, 'a'), (2, $2::text::json, 'b'), (3, $3::text::json, 'c')`,
      values: ['"a\\u0000b"', '"\\ud800"', '1e1000000'],
    });
    const operation = await move(tenant, to, () => db.query(sql`update documents set n = n + 1`));
    const before = await content(tenant, ['documents']);
    await step(world, operation, 'switchOver');
    expect(await content(tenant, ['documents'])).toEqual(before);
    await step(world, operation, 'complete');
  });
});
