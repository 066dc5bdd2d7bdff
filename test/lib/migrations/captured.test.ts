import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';
import { migrate } from './target.ts';

/** Triggers of a file's own that call the product's: it runs as the keeper, and must not run the home's code so. */
let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

const hasKeys = `if exists (select from tenancy.keys) then raise 'it has the keys'; end if;`;

/** Writes a row whose key, by the trigger, is a function that takes the row by a cast. */
const captured = (does: string) => `
  create table bait (tenant_id uuid not null, id integer not null, primary key (tenant_id, id));
  insert into bait select distinct tenant_id, 1 from notes;
  create function casts(bait) returns text language plpgsql as $f$ begin ${hasKeys} return 'select null::tsvector'; end $f$;
  create cast (bait as text) with function casts(bait) as implicit;
  create trigger captures after insert or update or delete on bait for each row execute function tenancy.capture('ts_stat');
  ${does}; drop table bait cascade`;

const files: [string, string, RegExp][] = [
  ...[
    'insert into bait select distinct tenant_id, 2 from notes',
    'update bait set id = 2',
    'delete from bait',
  ].map((does): (typeof files)[number] => [
    `a column that is a function: ${does}`,
    captured(does),
    /column "ts_stat" does not exist/,
  ]),
  [
    'a tenant_id that a cast makes a uuid of',
    `create type whose as enum ('x'); create table bait (tenant_id whose not null, id integer not null);
     create function casts(whose) returns uuid language plpgsql as $f$ begin ${hasKeys} return gen_random_uuid(); end $f$;
     create cast (whose as uuid) with function casts(whose) as assignment;
     create trigger captures after insert on bait for each row execute function tenancy.capture('id');
     insert into bait values ('x', 1); drop table bait; drop type whose cascade`,
    /invalid input syntax for type uuid: "x"/,
  ],
];

describe.each(strategies)('%s', (strategy) => {
  const a = () => world.tenants[strategy].a;
  let number = 9000;
  beforeAll(() => world.database(a()).query("insert into notes (body) values ('mine')"));

  it.each(files)('runs nothing of the home’s own by %s', async (_, sql, message) => {
    await expect(migrate(world, a(), [parseMigration(`${++number}-x.sql`, sql)])).rejects.toMatchObject({
      code: 'migration_refused',
      message: expect.stringMatching(message),
    });
  });
});
