import { expect, it } from 'vitest';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';

/** What is passed on where there is no wall: in notifications, which every session of the database may hear, and large objects. */
it.each([
  "select pg_notify('bodies', body) from notes",
  "do $$ begin perform pg_catalog.pg_notify('bodies', body) from notes; end $$",
  "do $$ declare r record; begin for r in select body from notes loop execute format('notify bodies, %L', r.body); end loop; end $$",
  "do 'begin perform lo_from_bytea(0, body::bytea) from notes; end'",
  "update notes set amount = lo_from_bytea(0, convert_to(body, 'UTF8'))",
])('is refused: %s', (sql) => {
  expect(() => parseMigration('0001-x.sql', `select 1;\n${sql}`)).toThrowError(
    /passes values on where there is no wall, at line 2 .*into a table of the home/,
  );
});

it.each([
  'notify migrated',
  "select pg_notify('migrated', '5')",
  "do $$ begin perform pg_notify('migrated', '5'); end $$",
  "comment on table notes is 'written by pg_notify() before'",
  'alter table notes add column notify boolean; update notes set notify = true, body = lower(body)',
  "do $$ begin execute 'update notes set notify = true'; end $$",
])('is taken: %s', (sql) => {
  expect(parseMigration('0001-x.sql', sql).sql).toBe(sql);
});
