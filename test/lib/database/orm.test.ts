import { sql as drizzleSql, eq } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import { bigint, pgTable, text, uuid } from 'drizzle-orm/pg-core';
import { Kysely, PostgresDialect } from 'kysely';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Queryable, TenantDatabase } from '../../../functions/lib/database/types.ts';
import { TenantryError } from '../../../functions/lib/errors.ts';
import { modes, startWorld, strategies, type TestTenant, type World } from '../../support/world.ts';

/** As an adopting team would declare the table; `tenant_id` has a default in the database. */
const notes = pgTable('notes', {
  tenantId: uuid('tenant_id').default(drizzleSql`default`).notNull(),
  noteId: uuid('note_id').defaultRandom().notNull(),
  body: text('body').notNull(),
  amount: bigint('amount', { mode: 'number' }).default(0).notNull(),
});
interface Tables {
  notes: { note_id?: string; body: string; amount?: string | number };
}

// Neither ORM's types know another client than node-postgres' own; at run time a queryable is all they use.
const drizzleOn = (queryable: Queryable) => drizzle(queryable as never);
const kyselyOn = (queryable: Queryable) =>
  new Kysely<Tables>({ dialect: new PostgresDialect({ pool: queryable as never }) });

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

const cases = strategies.flatMap((strategy) => modes.map((roundTrips) => ({ strategy, roundTrips })));

describe.each(cases)('$strategy, round trips: $roundTrips', ({ strategy, roundTrips }) => {
  let tenant: TestTenant;
  let db: TenantDatabase;
  beforeAll(async () => {
    tenant = world.tenants[strategy].a;
    db = world.database(tenant, { roundTrips });
    await db.query('delete from notes');
    await world
      .database(world.tenants[strategy].b)
      .query("insert into notes (body) values ('of the neighbour') on conflict do nothing");
  });
  const bodies = async () =>
    (await db.query<{ body: string }>('select body from notes order by body')).rows.map(({ body }) => body);
  const caught = (promise: Promise<unknown>): Promise<unknown> =>
    promise.then(
      () => expect.fail('it succeeded'),
      (error) => error,
    );
  /** Drizzle wraps what the client throws. */
  const messageOf = (error: unknown) =>
    String(error instanceof TenantryError ? error : (error as Error).cause);

  test('Drizzle on db: single statements', async () => {
    const orm = drizzleOn(db);
    const [made] = await orm.insert(notes).values({ body: 'drizzle', amount: 3 }).returning();
    expect(made).toMatchObject({ tenantId: tenant.id, body: 'drizzle', amount: 3 });
    await orm.update(notes).set({ amount: 4 }).where(eq(notes.noteId, made!.noteId));
    expect(await orm.select({ body: notes.body, amount: notes.amount }).from(notes)).toEqual([
      { body: 'drizzle', amount: 4 },
    ]);
    expect(
      (await orm.execute(drizzleSql`select count(*)::int as n from notes where body = ${'drizzle'}`)).rows,
    ).toEqual([{ n: 1 }]);
    const union = orm
      .select({ body: notes.body })
      .from(notes)
      .union(orm.select({ body: notes.body }).from(notes));
    expect(await union).toEqual([{ body: 'drizzle' }]);
    await orm.delete(notes).where(eq(notes.body, 'drizzle'));
    expect(await bodies()).toEqual([]);
  });

  test('Kysely on db: single statements', async () => {
    const orm = kyselyOn(db);
    const made = await orm
      .insertInto('notes')
      .values({ body: 'kysely', amount: 3 })
      .returningAll()
      .executeTakeFirstOrThrow();
    expect(made).toMatchObject({ tenant_id: tenant.id, body: 'kysely', amount: '3' });
    const updated = await orm
      .updateTable('notes')
      .set({ amount: 4 })
      .where('body', '=', 'kysely')
      .executeTakeFirst();
    expect(updated.numUpdatedRows).toBe(1n);
    expect(await orm.selectFrom('notes').select(['body', 'amount']).execute()).toEqual([
      { body: 'kysely', amount: '4' },
    ]);
    await orm.deleteFrom('notes').execute();
    expect(await bodies()).toEqual([]);
  });

  test("an ORM's own transaction on db is refused with the remedy, and does nothing", async () => {
    const withDrizzle = drizzleOn(db).transaction((tx) => tx.insert(notes).values({ body: 'never' }));
    expect(messageOf(await caught(withDrizzle))).toContain('db.transaction');
    const withKysely = kyselyOn(db)
      .transaction()
      .execute((tx) => tx.insertInto('notes').values({ body: 'never' }).execute());
    expect(messageOf(await caught(withKysely))).toContain('db.transaction');
    expect(await bodies()).toEqual([]);
  });

  test('Drizzle on tx: its transactions are savepoints, nested too', async () => {
    await db.transaction(async (tx) => {
      const orm = drizzleOn(tx);
      await orm.insert(notes).values({ body: 'a' });
      await orm.transaction(
        async (outer) => {
          await outer.insert(notes).values({ body: 'b' });
          const inner = outer.transaction(async (nested) => {
            await nested.insert(notes).values({ body: 'c' });
            await nested.insert(notes).values({ body: 'c' });
          });
          expect(messageOf(await caught(inner))).toContain('23505');
          await outer.insert(notes).values({ body: 'd' });
        },
        { isolationLevel: 'serializable', accessMode: 'read write' },
      );
      const undone = orm.transaction(async (outer) => {
        await outer.insert(notes).values({ body: 'e' });
        outer.rollback();
      });
      await caught(undone);
    });
    expect(await bodies()).toEqual(['a', 'b', 'd']);
    await db.query('delete from notes');
  });

  test('Kysely on tx: its transactions are savepoints, controlled ones too', async () => {
    await db.transaction(async (tx) => {
      const orm = kyselyOn(tx);
      await orm.insertInto('notes').values({ body: 'a' }).execute();
      await orm
        .transaction()
        .setIsolationLevel('serializable')
        .setAccessMode('read write')
        .execute((inner) => inner.insertInto('notes').values({ body: 'b' }).execute());
      const failing = orm.transaction().execute(async (inner) => {
        await inner.insertInto('notes').values({ body: 'c' }).execute();
        await inner.insertInto('notes').values({ body: 'c' }).execute();
      });
      expect(messageOf(await caught(failing))).toContain('23505');
      const controlled = await orm.startTransaction().execute();
      await controlled.insertInto('notes').values({ body: 'd' }).execute();
      const saved = await controlled.savepoint('here').execute();
      await saved.insertInto('notes').values({ body: 'e' }).execute();
      await saved.rollbackToSavepoint('here').execute();
      await controlled.commit().execute();
    });
    expect(await bodies()).toEqual(['a', 'b', 'd']);
    await db.query('delete from notes');
  });

  test('nothing of all that shows to the neighbour, or the neighbour here', async () => {
    const neighbour = world.database(world.tenants[strategy].b, { mode: 'r', roundTrips });
    expect((await neighbour.query('select body from notes')).rows).toEqual([{ body: 'of the neighbour' }]);
    expect(await bodies()).toEqual([]);
  });
});
