import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { asRole } from '../../../functions/lib/isolation/homes.ts';
import { hasRuntime, installRuntime } from '../../../functions/lib/migrations/install.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';

// The functions of the runtime are one migration, which replaces them all.

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world.close());

const asKeeper = (sql: string) =>
  withConnection(world.shared.admin, async (connection) => {
    const { rows } = await asRole(connection, 'tenancy_keeper', () => connection.query(sql));
    return rows as { [name: string]: string }[];
  });
const install = () =>
  withConnection(world.shared.admin, (connection) => installRuntime(connection, world.plane.keys, []));
const isThere = () =>
  withConnection(world.shared.admin, (connection) =>
    hasRuntime(connection, world.plane.keys, world.release.runtime, []),
  );
const recorded = async () =>
  (await asKeeper("select name from tenancy._migrations where name like '%-functions.sql'")).map(
    ({ name }) => name,
  );
const enters = async () =>
  (await asKeeper("select prosrc from pg_proc where oid = 'tenancy.enter(text)'::regprocedure"))[0]!.prosrc;
/** As another release would have left it: another text of one function, under another number. */
const becomes = (name: string) =>
  asKeeper(
    `create or replace function tenancy.enter(context text) returns void language sql as 'select null';
     update tenancy._migrations set name = '${name}', checksum = 'another' where name like '%-functions.sql'`,
  );

const own = () => world.release.runtime.at(-1)!.name;

beforeEach(() => asKeeper("delete from tenancy._migrations where name like '%-functions.sql'").then(install));

it('replaces the functions of an earlier release, and tells of the new ones alone', async () => {
  const text = await enters();
  await becomes('0012-functions.sql');
  expect(await isThere()).toBe(false);
  await install();
  expect(await enters()).toBe(text);
  expect(await recorded()).toEqual([own()]);
  expect(await isThere()).toBe(true);
});

it('leaves those of a later release, whose deployment is under way', async () => {
  const text = await enters();
  await becomes('9999-functions.sql');
  expect(await isThere()).toBe(true);
  await install();
  expect(await enters()).not.toBe(text);
  expect(await recorded()).toEqual(['9999-functions.sql']);
});

it('refuses other ones under the same number', async () => {
  await becomes(own());
  await expect(install()).rejects.toThrow(/was edited after it was applied: give its folder the next number/);
});

it('fails no call while it replaces them', async () => {
  let isOver = false;
  const callers = strategies.map(async (strategy) => {
    const db = world.database(world.tenants[strategy].a);
    let calls = 0;
    for (; !isOver; calls += 2) {
      await db.query('insert into notes (body) values (gen_random_uuid())');
      await db.query('select * from notes limit 5');
    }
    return calls;
  });
  for (let time = 0; time < 3; time += 1) {
    await asKeeper("delete from tenancy._migrations where name like '%-functions.sql'");
    await install();
  }
  isOver = true;
  for (const calls of await Promise.all(callers)) expect(calls).toBeGreaterThan(0);
});

it('has another number when its text is another one', async () => {
  const { name, checksum } = world.release.runtime.at(-1)!;
  expect(
    `${name} ${checksum}`,
    'Databases refuse another text under a number that they have. When this one was released, give the folder the next; then write both here.',
  ).toBe('0015-functions.sql e7c71cb9d58df4f633f99ce467b63b84a95407fef23fb6ef73c31f7a34cde992');
});
