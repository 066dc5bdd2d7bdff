import { expect, it } from 'vitest';
import { statementLocks } from '../../../functions/lib/migrations/locks.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';

const locksOf = (sql: string) => statementLocks(parseMigration('0001-x.sql', sql));

it.each([
  ['create table c (id uuid, foreign key (a, b) references items (a, b))', /^SHARE ROW EXCLUSIVE/, 'writes'],
  ['create table c (id uuid, up uuid references c (id))', /^no lock/, 'nobody'],
  ['create table if not exists c(id uuid, up uuid references c(id))', /^no lock/, 'nobody'],
  ['create table c (up uuid references c (id), item uuid references items (id))', /^SHARE ROW/, 'writes'],
  ['create table p partition of events default', /^ACCESS EXCLUSIVE, on the parent/, 'reads and writes'],
  [
    'alter table events attach partition p default',
    /^SHARE UPDATE EXCLUSIVE on the parent/,
    'reads and writes',
  ],
  ['alter table items add column c uuid references kinds (id)', /SHARE ROW EXCLUSIVE on/, 'reads and writes'],
  ['alter table items disable trigger t', /^SHARE ROW EXCLUSIVE/, 'writes'],
  ['reindex table items', /ACCESS EXCLUSIVE on the indexes/, 'reads and writes'],
  ['create rule r as on insert to items do nothing', /^ACCESS EXCLUSIVE/, 'reads and writes'],
  ['refresh materialized view m', /^ACCESS EXCLUSIVE, on the view/, 'reads and writes'],
  ['refresh materialized view concurrently m', /^EXCLUSIVE, on the view/, 'writes'],
  ['create or replace view v as select 1', /^ACCESS EXCLUSIVE, on the view/, 'reads and writes'],
  ['create view v as select 1', /^no lock/, 'nobody'],
  ["comment on table items is 'x'", /^SHARE UPDATE EXCLUSIVE/, 'nobody'],
  ['do $$ begin alter table items add column x int; end $$', /can’t be told/, 'unknown'],
  ['select f()', /can’t be told/, 'unknown'],
  ['call p()', /can’t be told/, 'unknown'],
])('%s', (sql, lock, blocks) => {
  expect(locksOf(sql)).toMatchObject([{ lock: expect.stringMatching(lock), blocks }]);
});

it('of a table that the same file makes, nobody waits for its indexes and changes', () => {
  const made = 'create table suppliers (tenant_id uuid, name text);';
  const blocks = (sql: string) => locksOf(`${made} ${sql}`)[1]!.blocks;
  expect(blocks('create unique index on suppliers (name, tenant_id)')).toBe('nobody');
  expect(blocks('alter table only suppliers add check (true), add column city text')).toBe('nobody');
  expect(blocks('create index if not exists suppliers_name on items (name)')).toBe('writes');
  expect(blocks('alter table suppliers add foreign key (tenant_id) references items (tenant_id)')).toBe(
    'writes',
  );
  expect(blocks('alter table items add column city text')).toBe('reads and writes');
});
