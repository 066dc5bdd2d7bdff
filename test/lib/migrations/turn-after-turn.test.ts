import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { startWorld, type TestTenant, type World } from '../../support/world.ts';
import { migrate } from './target.ts';

/** In shared tables, what a function could carry from one tenant's turn of a statement into the next. */
let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

let number = 9000;
const run = (sql: string) =>
  migrate(world, world.tenants.rls.a, [parseMigration(`${++number}-x.sql`, sql)], { isSound: true });

describe('the turns of tenants who have a row each', () => {
  const a = () => world.tenants.rls.a;
  const b = () => world.tenants.rls.b;
  const bodies = async (tenant: TestTenant) =>
    JSON.stringify((await world.database(tenant).query('select body, read from notes')).rows);
  beforeAll(async () => {
    await run('delete from notes; alter table notes add column read text');
    for (const tenant of [a(), b()])
      await world.database(tenant).query('insert into notes (body) values ($1)', [`of ${tenant.slug}`]);
  });
  afterAll(() => run('alter table notes drop column read'));

  it.each(['alter', '"create"', '"alter table x"'])(
    'takes no query of a function that is called %s for the server’s check of a foreign key',
    async (name) => {
      const query =
        'SELECT fk."body" FROM notes fk LEFT OUTER JOIN notes pk ON ( pk."note_id" = fk."note_id") order by 1';
      for (const order of ['asc', 'desc']) {
        await run(
          `create function ${name}() returns text language plpgsql as $f$ declare r text; begin execute $q$${query} ${order} -- alter table$q$ into r; return r; end $f$;
           update notes set read = ${name}(); drop function ${name}()`,
        );
        for (const [one, other] of [
          [a(), b()],
          [b(), a()],
        ] as const)
          expect(await bodies(one)).not.toContain(`of ${other.slug}`);
      }
    },
  );

  it('writes nothing of all rows down while they are computed', async () => {
    const keeps = `create table kept (body text); insert into kept values ('a constant'); alter table kept alter column body type varchar;
      create function keeps(text) returns text language plpgsql as $f$ begin insert into kept values ($1); return $1; end $f$`;
    for (const computes of [
      'alter table notes alter column body type text using keeps(body)',
      'alter table notes add check (keeps(body) is not null)',
      `do $do$ begin execute 'alter table notes alter column body type text using keeps(body)'; end $do$`,
    ])
      await expect(
        run(
          `${keeps}; ${computes}; update notes set read = (select string_agg(body, ' ') from kept); drop table kept; drop function keeps cascade`,
        ),
        computes,
      ).rejects.toMatchObject({ message: expect.stringMatching(/rows are written while.*write nothing/) });
  });

  it.each([
    ['a setting', "perform set_config('app.was', $1, true);"],
    ['a setting behind EXECUTE', "execute format('set local app.was = %L', $1);"],
  ])('keeps nothing for the next one in %s that a function writes', async (_, keeps) => {
    await run(
      `create function before(text) returns text language plpgsql as $f$ declare was text := current_setting('app.was', true); begin
         ${keeps} return concat(was, ' then ', current_setting('app.kept', true)); end $f$;
       set app.kept = 'the same for all'; update notes set read = before(body); drop function before`,
    );
    for (const tenant of [a(), b()])
      expect((await world.database(tenant).query('select read from notes')).rows).toEqual([
        { read: ' then the same for all' },
      ]);
  });

  it('keeps nothing for the next one in a statement that it prepares, or in a setting', async () => {
    await run(
      `do $$ declare was text; begin
         if exists (select from pg_prepared_statements where name = 'was') then execute 'execute was' into was; execute 'deallocate was'; end if;
         update notes set read = concat('was ', was); execute format('prepare was as select %L', (select max(body) from notes)); end $$`,
    );
    for (const tenant of [a(), b()])
      expect((await world.database(tenant).query('select read from notes')).rows).toEqual([{ read: 'was ' }]);
    await expect(
      run(`do $$ begin execute format('set local app.was = %L', (select max(body) from notes)); end $$`),
    ).rejects.toMatchObject({ message: expect.stringContaining('in a variable of one DO block') });
  });
});
