import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';
import { migrate } from './target.ts';

/** What a foreign key's action runs as the owner of all homes reads no table; what fires after it is the caller. */
const triggers = parseMigration(
  '9100-triggers.sql',
  `create table trees (tenant_id uuid not null, id int not null, primary key (tenant_id, id));
   create table leaves (tenant_id uuid not null, id int not null, tree int, primary key (tenant_id, id),
     foreign key (tenant_id, tree) references trees on delete cascade);
   create table birds (tenant_id uuid not null, id int not null, tree int, touched timestamptz, primary key (tenant_id, id),
     check (id > 0), foreign key (tenant_id, tree) references trees on delete set null (tree));
   create function touch() returns trigger language plpgsql as $$
     begin
       -- Taken from no table.
       if tg_op = 'UPDATE' and new.tree is distinct from old.tree then new.touched := now(); end if;
       return new;
     end $$;
   create trigger touch before insert or update on birds for each row execute function touch();
   create function count_trees() returns trigger language plpgsql as $$
     begin
       perform set_config('tests.seen', concat_ws(' ', current_setting('tests.seen', true), current_user, (select count(*) from trees)), true);
       return null;
     end $$;
   create trigger count_each after delete on leaves for each row execute function count_trees();
   create trigger count_all after delete on leaves execute function count_trees();`,
);

let world: World;
beforeAll(async () => {
  world = await startWorld({ migrations: [triggers] });
});
afterAll(() => world?.close());

describe.each(strategies)('a trigger of %s', (strategy) => {
  it.each([true, false])(
    'after a cascade is the caller’s, with a path of its own too (%s)',
    async (astray) => {
      const { a, b } = world.tenants[strategy];
      for (const tenant of [a, b])
        await world
          .database(tenant)
          .query('insert into trees (id) values (1), (2), (3) on conflict do nothing');
      await world.asLogin(a, async (connection) => {
        await connection.query('begin isolation level read committed');
        await connection.query('select tenancy.enter($1)', [world.context(a)]);
        await connection.query(
          'insert into leaves (id, tree) values (1, 1); insert into birds (id, tree) values (1, 1)',
        );
        const path = astray && strategy === 'schema' ? b.home.schema : a.home.schema;
        const deletion = connection.query(
          `select set_config('search_path', '${path}', true); delete from ${a.home.schema}.trees where id = 1`,
        );
        if (path === a.home.schema) {
          await deletion;
          const { rows } = await connection.query(
            "select current_setting('tests.seen') as seen, tree, touched is not null as touched from birds",
          );
          const seen = `${a.home.login} 2`;
          expect(rows).toEqual([{ seen: `${seen} ${seen}`, tree: null, touched: true }]);
        } else await expect(deletion).rejects.toMatchObject({ code: '42P01' });
      });
    },
  );
});

describe.each(strategies)('a refused key of %s', (strategy) => {
  it('is taken with the actions that the refusal names', async () => {
    const onUpdate = 'on update cascade';
    const file = (written: string) =>
      parseMigration(
        '9200-nests.sql',
        `create table nests (tenant_id uuid not null, id int not null, tree int, primary key (tenant_id, id),
           foreign key (tenant_id, tree) references trees ${written});
         create function looks() returns trigger language plpgsql as 'begin perform from trees; return new; end';
         create trigger looks before update on nests for each row execute function looks()`,
      );
    const apply = (written: string) => migrate(world, world.tenants[strategy].a, [file(written)]);
    const refusal: Error = await apply(`on delete no action ${onUpdate}`).catch((error) => error);
    const named = /key `([^`]+)`/.exec(refusal.message)?.[1] ?? '';
    // What it does not name stays as it was.
    expect(await apply(named.includes('on update') ? named : `${named} ${onUpdate}`)).toEqual([
      '9200-nests.sql',
    ]);
  });
});
