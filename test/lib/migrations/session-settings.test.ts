import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type MigrationFile, parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';
import { migrate as migrateTenant, targetOf } from './target.ts';

/** As pg_dump 17 writes it. */
const header = `SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
SET default_tablespace = '';
SET default_table_access_method = heap;
`;

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

describe('a file', () => {
  it.each([
    ["set lock_timeout = '1h'", 'its limits are the migrator’s'],
    ['SET LOCAL "statement_timeout" TO 900000', 'its limits are the migrator’s'],
    ['reset transaction_timeout', 'its limits are the migrator’s'],
    ['set session_replication_role = replica', 'foreign keys'],
    ["set local tenancy.tenant = 'x'", 'whose rows'],
    ["set schema 'public'", 'leave schemas to the migrator'],
    ['set session characteristics as transaction read only', 'leave transactions and roles'],
    ['reset all', 'what a file sets ends with it'],
  ])('may not take what the migrator keeps: %s', (sql, remedy) => {
    expect(() => parseMigration('0001-x.sql', sql)).toThrow(remedy);
  });

  it('is run without what a pg_dump begins with; lines, checksum and all else stay', () => {
    const { sql, sets, checksum } = parseMigration('0001-x.sql', `-- A dump.\n${header}select 1;`);
    expect(sql).not.toMatch(/timeout|row_security|search_path/);
    expect(sql.split('\n')).toHaveLength(15);
    expect(sql).toContain('SET check_function_bodies = false;');
    expect(sets).toContain('default_tablespace');
    expect(checksum).not.toBe(parseMigration('0001-x.sql', 'select 1;').checksum);
    expect(parseMigration('0001-x.sql', "set time zone 'UTC'; set constraints all deferred").sets).toEqual([
      'timezone',
    ]);
  });
});

describe.each(strategies)('%s', (strategy) => {
  const tenant = () => world.tenants[strategy].a;
  const home = () => targetOf(world, tenant()).home;
  const migrate = (...files: MigrationFile[]) => migrateTenant(world, tenant(), files);

  it('is held to the migrator’s limits, its path and its rows, whatever a dump says', async () => {
    const raise = `do $$ begin
      if '0' in (current_setting('lock_timeout'), current_setting('statement_timeout'), current_setting('transaction_timeout'))
        or current_setting('row_security') <> 'on' or current_schema() <> '${home().schema}' then raise 'taken away';
      end if; end $$`;
    const file = parseMigration('9501-dump.sql', `${header}${raise}; update notes set amount = amount + 1`);
    expect(await migrate(file)).toEqual(['9501-dump.sql']);
  });

  it('keeps what one file sets from the files after it', async () => {
    await world.database(tenant()).query("insert into notes (body) values ('there')");
    const applied = await migrate(
      parseMigration(
        '9510-dump.sql',
        `${header}set local time zone 'Pacific/Apia'; select set_config('my.user', 'me', false); do $$ begin execute format('set my.name = %L', 'mine'); end $$`,
      ),
      parseMigration('9511-fill.sql', 'update notes set amount = amount + 1'),
      parseMigration(
        '9512-table.sql',
        'create table later (tenant_id uuid not null, id uuid not null, primary key (tenant_id, id))',
      ),
      parseMigration(
        '9513-as-it-was.sql',
        "do $$ begin if current_setting('check_function_bodies') <> 'on' or current_setting('client_min_messages') = 'warning' or current_setting('timezone') = 'Pacific/Apia' or concat(current_setting('my.user', true), current_setting('my.name', true)) <> '' then raise 'leaked'; end if; end $$",
      ),
    );
    expect(applied).toHaveLength(4);
  });
});
