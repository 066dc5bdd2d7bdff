import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { startWorld, type World } from '../../support/world.ts';
import { migrate } from './target.ts';

/** What is refused in shared tables because it would reach all tenants' rows at once, or pass one's on to the next. */
let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

let number = 9000;

describe('shared tables', () => {
  const run = (sql: string) =>
    migrate(world, world.tenants.rls.a, [parseMigration(`${++number}-x.sql`, sql)], { isSound: true });

  it.each([
    ['a table made of rows', 'create table copies as select * from notes'],
    ['rows for nobody', "insert into notes (body) values ('seed')"],
    ['a look at all', 'select max(body) from notes'],
    ['a check that looks', 'alter table notes add constraint looks check (looks(body))'],
  ])('refuse %s, with line and remedy', async (_, statement) => {
    const before =
      "create function looks(b text) returns boolean language sql stable as 'select exists (select from notes where body = b)'";
    for (const tenant of [world.tenants.rls.a, world.tenants.rls.b])
      await world.database(tenant).query("insert into notes (body) values ('here') on conflict do nothing");
    await expect(run(`${before};\n${statement}`)).rejects.toMatchObject({
      code: 'migration_refused',
      message: expect.stringMatching(/at line 2 .*: write it as an `update`/),
    });
  });

  it.each([
    ['one that goes', '', '; drop table bucket'],
    ['one that stays', '', ''],
    ['one that everybody may read', 'grant select on bucket to tenancy_app;', '; drop table bucket'],
  ])('take no rows into a table without tenant_id: %s', async (_, more, then) => {
    await expect(
      run(`create table bucket (body text); ${more} insert into bucket select body from notes${then}`),
    ).rejects.toMatchObject({
      code: 'migration_refused',
      message: expect.stringMatching(
        /one tenant after the other into a table without tenant_id.*tenant_id uuid not null/,
      ),
    });
  });

  it('take no rows into a table without tenant_id that a block makes for the first of them', async () => {
    await expect(
      run(
        "do 'begin create table if not exists bucket (body text); insert into bucket select body from notes; end'; drop table bucket",
      ),
    ).rejects.toMatchObject({ message: expect.stringContaining('one tenant after the other into a table') });
  });

  it.each([
    ['a computed column', 'alter column body type text using body_of(body)'],
    ['a default', 'add column first_body text default body_of(null)'],
    ['a check', "add constraint looks check (body_of(body) <> '')"],
  ])('let a foreign key alone look at all rows, not %s beside it', async (_, action) => {
    const before = `create table pointed (tenant_id uuid not null, id uuid not null, primary key (tenant_id, id));
      create function body_of(b text) returns text language sql volatile as 'select max(id::text) from pointed';
      alter table notes add column pointed uuid; insert into pointed (tenant_id, id) select tenant_id, note_id from notes;`;
    const key = 'add foreign key (tenant_id, pointed) references pointed (tenant_id, id)';
    await expect(run(`${before}\nalter table notes ${action}, ${key}`)).rejects.toMatchObject({
      code: 'migration_refused',
      message: expect.stringMatching(/for none of them.*at line 4/),
    });
    await run(
      `${before} alter table notes ${key}; alter table notes drop column pointed; drop function body_of(text); drop table pointed`,
    );
  });

  it.each([
    ['a statement', '{}'],
    ['a block that makes it once', 'do $$ begin {} end $$'],
    [
      'a block that makes it for the first of them',
      "do $$ begin if not exists (select from pg_constraint where conname = 'k') then {} end if; update notes set amount = amount; end $$",
    ],
  ])('check a new foreign key over all of them, in %s', async (_, form) => {
    const key =
      'alter table links add constraint k foreign key (tenant_id, note_id) references notes (tenant_id, note_id);';
    await run(
      'create table links (tenant_id uuid not null, note_id uuid not null, primary key (tenant_id, note_id))',
    );
    const everybodys = [world.tenants.rls.a, world.tenants.rls.b].map((tenant) => world.database(tenant));
    for (const db of everybodys) await db.query('insert into links (note_id) values (gen_random_uuid())');
    for (const db of everybodys) {
      await expect(run(form.replace('{}', key))).rejects.toMatchObject({
        message: expect.stringContaining('violates foreign key'),
      });
      await db.query('delete from links');
    }
    await run(form.replace('{}', key));
    await run('alter table links drop constraint k; drop table links');
  });

  it('take no query of a file’s own for the server’s check of a foreign key', async () => {
    await world.database(world.tenants.rls.a).query("insert into notes (body) values ('looked at')");
    await expect(
      run(
        `create function looks() returns bigint language plpgsql as 'declare n bigint; begin SELECT fk."amount" into n from notes fk limit 1; return n; end';
         select looks()`,
      ),
    ).rejects.toMatchObject({ message: expect.stringContaining('for none of them') });
  });

  it('let columns of a foreign key get another type', async () => {
    await run(
      `create table parents (tenant_id uuid not null, id integer not null, primary key (tenant_id, id));
       create table children (tenant_id uuid not null, id integer not null, parent integer not null, primary key (tenant_id, id),
         foreign key (tenant_id, parent) references parents (tenant_id, id));
       insert into parents (tenant_id, id) select distinct tenant_id, 1 from notes; insert into children (tenant_id, id, parent) select tenant_id, 1, id from parents;`,
    );
    await run(
      'alter table parents alter column id type bigint; alter table children alter column parent type bigint; drop table children; drop table parents',
    );
  });

  it('find a table open to nobody, in the file that opens it', async () => {
    await expect(
      run(
        'alter table notes disable row level security; create table copies as select tenant_id, note_id as id, (select max(body) from notes) from notes; alter table copies alter tenant_id set not null, add primary key (tenant_id, id)',
      ),
    ).rejects.toMatchObject({ message: expect.stringContaining('for none of them') });
  });

  it('refuse to pass rows on in a table without tenant_id, and take constants there', async () => {
    const made = 'create table words (word text)';
    const dropped = 'drop table words';
    await expect(
      run(`${made};\ninsert into words select body from notes;\n${dropped}`),
    ).rejects.toMatchObject({
      code: 'migration_refused',
      message: expect.stringMatching(/at line 2 .*: declare `tenant_id uuid not null` in it/),
    });
    await run(
      `${made}; insert into words values ('here'); update notes set amount = 1 from words where body = word; ${dropped}`,
    );
  });

  it('take no rows into a table with a key over all tenants, where one’s would be in another’s way', async () => {
    await expect(
      run(
        `create table bucket (tenant_id uuid, body text unique);\ninsert into bucket (body) select body from notes on conflict do nothing;
         update notes set amount = (select count(*) from bucket); drop table bucket`,
      ),
    ).rejects.toMatchObject({
      code: 'migration_refused',
      message: expect.stringMatching(
        /bucket has a key over all tenants .*at line 2 .*add tenant_id to its keys/,
      ),
    });
  });

  it('refuse to pass a value on in a setting, and take constants there', async () => {
    await expect(
      run("do $$ begin perform set_config('my.first', (select max(body) from notes), true); end $$"),
    ).rejects.toMatchObject({
      code: 'migration_refused',
      message: expect.stringMatching(
        /set_config runs for one tenant .*at line 1 .*a variable of one DO block/,
      ),
    });
    await run(
      "do $$ begin perform set_config('my.name', 'here', true); end $$; update notes set amount = amount",
    );
  });

  it.each(['disable', 'no force'])('refuse a block with `%s row level security`', async (change) => {
    const sql = `do $$ begin alter table notes ${change} row level security; update notes set body = (select max(body) from notes); end $$`;
    await expect(run(`${sql};`)).rejects.toMatchObject({
      code: 'migration_refused',
      message: expect.stringMatching(/takes row security away in a block or function, at line 1/),
    });
  });

  it('give no row to another tenant', async () => {
    const { a, b } = world.tenants.rls;
    await expect(run(`update notes set tenant_id = '${b.id}'`)).rejects.toMatchObject({
      code: 'migration_refused',
      message: expect.stringContaining('row-level security'),
    });
    expect((await world.database(a).query("select from notes where body = 'here'")).rows).toHaveLength(1);
  });

  it('take a file whose statements reach nobody’s rows as it is', async () => {
    await run(
      "do 'begin create table made_once (tenant_id uuid not null, id integer not null, primary key (tenant_id, id)); end'",
    );
  });

  it('leave nothing of one tenant for the next statement', async () => {
    await expect(
      run(
        `update notes set amount = amount;\ndo 'begin if current_setting($$tenancy.maintained$$) <> $$$$ then raise $$left$$; end if; end'`,
      ),
    ).resolves.toBeDefined();
  });
});
