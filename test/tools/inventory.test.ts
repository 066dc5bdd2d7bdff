import { randomBytes, randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { z } from 'zod';
import { createCursors } from '../../functions/lib/mcp/cursor.ts';
import { type TenantDatabase, type Tool, ToolError } from '../../functions/lib/mcp/tool.ts';
import { adjustStock } from '../../functions/mcp/tools/adjust-stock.ts';
import { getItem } from '../../functions/mcp/tools/get-item.ts';
import { listLowStock } from '../../functions/mcp/tools/list-low-stock.ts';
import { searchInventory } from '../../functions/mcp/tools/search-inventory.ts';
import { stockHistory } from '../../functions/mcp/tools/stock-history.ts';
import { demoInventory, seedInventory } from '../../infra/local/demo/inventory.ts';
import { startWorld, strategies, type TestTenant, type World } from '../support/world.ts';

let world: World;
const cursors = createCursors([randomBytes(32)]);
const mine = demoInventory('acme', { items: 1000 });
const theirs = demoInventory('globex', { items: 50 });

beforeAll(async () => {
  world = await startWorld();
  for (const strategy of strategies) {
    const { a, b } = world.tenants[strategy];
    await seedInventory(world.database(a), mine);
    await seedInventory(world.database(b), theirs);
  }
});
afterAll(() => world.close());

/** Calls a tool as the endpoint does: arguments checked, database bound to the caller's tenant, answer checked. */
async function call<I extends z.ZodObject, O extends z.ZodObject>(
  tool: Tool<I, O>,
  tenant: TestTenant,
  args: z.input<I>,
  principal = 'agent',
  db: TenantDatabase = world.database(tenant, { mode: tool.annotations.readOnlyHint ? 'r' : 'w' }),
): Promise<z.output<O>> {
  const answer = await tool.run(tool.input.strict().parse(args) as z.output<I>, {
    db,
    tenant: { id: tenant.id, slug: tenant.slug },
    principal,
    signal: new AbortController().signal,
    log: { info: () => {}, warn: () => {} },
    cursor: cursors({ tenant: tenant.id, auth: 'oidc:test', principal, tool: tool.name }),
  });
  return tool.output.parse(answer) as z.output<O>;
}

/** The statements that a call sends. */
async function statementsOf<I extends z.ZodObject>(
  tool: Tool<I, z.ZodObject>,
  tenant: TestTenant,
  args: z.input<I>,
) {
  const sent: { text: string; values: unknown[] }[] = [];
  const database = world.database(tenant, { mode: tool.annotations.readOnlyHint ? 'r' : 'w' });
  const recorded = Object.create(database, {
    query: {
      value(statement: { text: string; values: readonly unknown[] }) {
        sent.push({ text: statement.text, values: [...statement.values] });
        return database.query(statement as Parameters<typeof database.query>[0]);
      },
    },
  });
  await call(tool, tenant, args, 'agent', recorded);
  return sent;
}

describe.each(strategies)('%s', (strategy) => {
  let us: TestTenant;
  let neighbour: TestTenant;
  beforeAll(() => {
    us = world.tenants[strategy].a;
    neighbour = world.tenants[strategy].b;
  });

  /** An item of this test's own. */
  async function stock(quantity: number, name = 'Test item'): Promise<string> {
    const sku = `T-${randomUUID().slice(0, 8)}`;
    await world.database(us).query(
      `insert into items (sku, name, category, location, unit, price_cents, quantity)
       values ($1, $2, 'Tests', 'Here', 'piece', 100, $3)`,
      [sku, name, quantity],
    );
    return sku;
  }
  const adjust = (sku: string, change: number, idempotency_key: string = randomUUID(), tenant = us) =>
    call(adjustStock, tenant, { sku, change, reason: 'sold', idempotency_key });

  describe('search_inventory', () => {
    const search = (q: string, limit?: number) => call(searchInventory, us, { q, limit });

    it('finds every word, in any order and case, wherever it stands', async () => {
      const { items, more } = await search('m8 BOLT hex', 50);
      const expected = mine.items.filter(({ name }) => /^Hex bolt, M8,/.test(name)).map(({ sku }) => sku);
      expect(expected.length).toBeGreaterThan(3);
      expect(items.map(({ sku }) => sku).sort()).toEqual(expected.sort());
      expect(more).toBe(false);
      expect(items[0]).toEqual(mine.items.find(({ sku }) => sku === items[0]!.sku));
    });

    it('puts the exact SKU first', async () => {
      const { sku } = mine.items[42]!;
      expect((await search(sku.toLowerCase())).items[0]?.sku).toBe(sku);
    });

    it('says when there is more, and stops at the limit', async () => {
      const { items, more } = await search('a', 3);
      expect([items.length, more]).toEqual([3, true]);
      await expect(search('a', 51)).rejects.toThrow();
      await expect(search('  ')).rejects.toThrow();
    });

    it('takes % and _ and \\ as they are', async () => {
      const sku = await stock(1, 'Cleaner 70% \\ mixed_use');
      for (const q of ['70%', '\\', 'mixed_use', '% \\']) {
        expect(
          (await search(q)).items.map((item) => item.sku),
          q,
        ).toContain(sku);
      }
      for (const q of ['%', '_', 'mixed%use', 'Cle_ner', '7\\0%', '\\%']) {
        const found = (await search(q, 50)).items.filter(({ name }) => !name.includes(q));
        expect(found, q).toEqual([]);
      }
    });

    it('finds any script, and quotes nothing into the statement', async () => {
      for (const name of [
        'Größe 3 Überwurfmutter',
        '精密ピンセット 12cm',
        "O'Neill – 'half; --",
        '🔩 bolt $1',
      ]) {
        const sku = await stock(1, name);
        expect((await search(name)).items.map((item) => item.sku)).toEqual([sku]);
      }
      expect((await search('ÜBERWURFMUTTER')).items.length).toBe(1);
    });

    it('shows nothing of a neighbour', async () => {
      const foreign = theirs.items[0]!;
      expect((await call(searchInventory, neighbour, { q: foreign.sku })).items[0]?.sku).toBe(foreign.sku);
      expect((await search(foreign.sku)).items).toEqual([]);
    });
  });

  describe('get_item', () => {
    it('answers the item', async () => {
      const item = mine.items[7]!;
      expect(await call(getItem, us, { sku: item.sku })).toEqual({ item });
    });

    it('says the same of a neighbour’s item and of one that nobody has', async () => {
      const said = (sku: string) =>
        call(getItem, us, { sku }).then(
          () => expect.fail('found'),
          (error: ToolError) => error.message.replace(sku, '…'),
        );
      expect(await said(theirs.items[0]!.sku)).toBe(await said('NO-SUCH'));
    });
  });

  describe('list_low_stock', () => {
    const low = mine.items.filter(({ quantity, reorder_level }) => quantity <= reorder_level);

    it('lists what lacks most first, and counts all', async () => {
      const { items, total } = await call(listLowStock, us, { limit: 5 });
      const shortages = low
        .map(({ quantity, reorder_level }) => reorder_level - quantity)
        .sort((x, y) => y - x);
      expect(total).toBe(low.length);
      expect(items.map(({ quantity, reorder_level }) => reorder_level - quantity)).toEqual(
        shortages.slice(0, 5),
      );
    });

    it('of one category', async () => {
      const { category } = low[0]!;
      const { items, total } = await call(listLowStock, us, { category, limit: 100 });
      expect(items.every((item) => item.category === category)).toBe(true);
      expect(total).toBe(low.filter((item) => item.category === category).length);
      expect(await call(listLowStock, us, { category: 'Antibodies' })).toEqual({ items: [], total: 0 });
    });
  });

  describe('adjust_stock', () => {
    it('changes stock once, however often and however concurrently the call is repeated', async () => {
      const sku = await stock(100);
      const key = randomUUID();
      const answers = await Promise.all(Array.from({ length: 20 }, () => adjust(sku, -30, key)));
      expect(answers.filter(({ repeated }) => !repeated).length).toBe(1);
      expect(new Set(answers.map(({ movement_id, quantity }) => `${movement_id} ${quantity}`)).size).toBe(1);
      expect(answers[0]).toMatchObject({ sku, change: -30, quantity: 70 });
      expect((await call(getItem, us, { sku })).item.quantity).toBe(70);
      expect((await call(stockHistory, us, { sku })).movements.length).toBe(1);
      // The first answer, even when the stock would not suffice any more.
      await adjust(sku, -70);
      expect(await adjust(sku, -30, key)).toMatchObject({ quantity: 70, repeated: true });
    });

    it('never goes below zero, and loses no change, under concurrent calls', async () => {
      const sku = await stock(12);
      const results = await Promise.allSettled(Array.from({ length: 20 }, () => adjust(sku, -1)));
      const left = results.flatMap((result) =>
        result.status === 'fulfilled' ? [result.value.quantity] : [],
      );
      expect(left.sort((x, y) => x - y)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
      for (const result of results)
        if (result.status === 'rejected') expect(result.reason).toBeInstanceOf(ToolError);
      expect((await call(getItem, us, { sku })).item.quantity).toBe(0);
      const { movements } = await call(stockHistory, us, { sku, limit: 100 });
      expect(movements.map(({ quantity }) => quantity)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    });

    it('says how much there is when more is asked for, and changes nothing', async () => {
      const sku = await stock(5);
      await expect(adjust(sku, -6)).rejects.toThrow(`${sku} has 5 in stock`);
      expect((await call(getItem, us, { sku })).item.quantity).toBe(5);
      expect((await call(stockHistory, us, { sku })).movements).toEqual([]);
    });

    it('refuses a key that was used for another change', async () => {
      const sku = await stock(50);
      const key = randomUUID();
      await adjust(sku, -1, key);
      await expect(adjust(sku, -2, key)).rejects.toThrow(/used before, for -1 /);
      await expect(adjust(await stock(50), -1, key)).rejects.toThrow(/used for another item/);
      expect((await call(getItem, us, { sku })).item.quantity).toBe(49);
    });

    it('keeps keys apart by tenant, and cannot reach a neighbour’s item', async () => {
      const sku = await stock(50);
      const key = randomUUID();
      await adjust(sku, -1, key);
      const foreign = theirs.items.find(({ quantity }) => quantity > 1)!;
      await expect(adjust(foreign.sku, -1)).rejects.toThrow(/There is no item/);
      const answer = await adjust(foreign.sku, 1, key, neighbour);
      expect(answer).toMatchObject({ change: 1, repeated: false });
      await adjust(foreign.sku, -1, randomUUID(), neighbour);
    });

    it.each([
      ['no change', { change: 0 }],
      ['a fraction', { change: 0.5 }],
      ['too much at once', { change: 1_000_001 }],
      ['a key that is too short to be unique', { idempotency_key: '1' }],
      ['a reason that is not known', { reason: 'because' as 'sold' }],
      ['a tenant', { tenant: 'globex' }],
    ])('refuses %s', async (_what, changed) => {
      const args = {
        sku: 'X',
        change: 1,
        reason: 'sold' as const,
        idempotency_key: randomUUID(),
        ...changed,
      };
      await expect(call(adjustStock, us, args)).rejects.toHaveProperty('name', 'ZodError');
    });
  });

  describe('stock_history', () => {
    const { sku } = mine.items.find(
      (item) => mine.movements.filter((movement) => movement.sku === item.sku).length >= 5,
    )!;
    const history = (
      args: { sku?: string; cursor?: string | undefined; limit?: number },
      tenant = us,
      principal?: string,
    ) => call(stockHistory, tenant, { sku, ...args }, principal);

    it('answers all movements, newest first, page by page', async () => {
      const expected = mine.movements.filter((movement) => movement.sku === sku).reverse();
      const seen = [];
      let cursor: string | undefined;
      do {
        const page = await history({ cursor, limit: 2 });
        seen.push(...page.movements);
        cursor = page.next_cursor;
        // What happens between two pages shifts nothing.
        if (cursor) await adjust(sku, 1);
      } while (cursor);
      expect(seen.map(({ change, quantity, reason, note }) => ({ change, quantity, reason, note }))).toEqual(
        expected.map(({ change, balance, reason, note }) => ({ change, quantity: balance, reason, note })),
      );
      expect(seen[0]!.made_at).toBe(expected[0]!.made_at.toISOString().replace('Z', '000Z'));
    });

    it('has no next page when the last one is just full', async () => {
      const fresh = await stock(10);
      for (const change of [1, 2, 3]) await adjust(fresh, change);
      const { movements, next_cursor } = await history({ sku: fresh, limit: 3 });
      expect([movements.map(({ change }) => change), next_cursor]).toEqual([[3, 2, 1], undefined]);
      expect((await history({ sku: fresh, limit: 2 })).next_cursor).toBeTypeOf('string');
    });

    it('tells an item without movements from one that is not there', async () => {
      expect(await history({ sku: await stock(1) })).toEqual({ movements: [] });
      await expect(history({ sku: theirs.items[0]!.sku })).rejects.toThrow(/There is no item/);
    });

    it('opens a cursor only for the tenant, the principal and the item it was made for', async () => {
      const cursor = (await history({ limit: 1 })).next_cursor!;
      expect((await history({ cursor })).movements.length).toBeGreaterThan(0);
      const code = { code: 'invalid_cursor' };
      await expect(history({ cursor }, neighbour)).rejects.toMatchObject(code);
      await expect(history({ cursor }, us, 'another agent')).rejects.toMatchObject(code);
      await expect(history({ cursor: `${cursor.slice(0, -4)}AAAA` })).rejects.toMatchObject(code);
      await expect(history({ cursor: 'abc' })).rejects.toMatchObject(code);
      await expect(history({ cursor, sku: mine.items.at(-1)!.sku })).rejects.toThrow(/another SKU/);
      expect(Buffer.from(cursor, 'base64url').toString('latin1')).not.toContain(sku);
    });
  });

  it('looks everything up by an index, with and without row-level security', async () => {
    const { sku } = mine.items[3]!;
    const cursor = (await call(stockHistory, us, { sku, limit: 1 })).next_cursor;
    const key = randomUUID();
    const adjustment = { sku, change: 1, reason: 'sold', idempotency_key: key } as const;
    const sent = [
      ...(await statementsOf(getItem, us, { sku })),
      ...(await statementsOf(stockHistory, us, { sku, cursor })),
      ...(await statementsOf(adjustStock, us, adjustment)),
      ...(await statementsOf(adjustStock, us, adjustment)),
    ];
    expect(sent.length).toBe(5);
    await world.asProvisioner(us, async (connection) => {
      await connection.query('set role tenancy_owner');
      await connection.query(`analyze ${us.home.schema}.items, ${us.home.schema}.stock_movements`);
    });
    await world.asLogin(us, async (connection) => {
      await connection.query('begin');
      await connection.query('select tenancy.enter($1)', [world.context(us)]);
      for (const { text, values } of sent) {
        const { rows } = await connection.query(`explain ${text}`, values);
        const plan = rows.map((row) => row['QUERY PLAN']).join('\n');
        expect(plan).not.toContain('Seq Scan');
      }
      await connection.query('rollback');
    });
  });

  it('the demo data can be written again without changing anything', async () => {
    const count = async () =>
      (
        await world
          .database(neighbour)
          .query('select (select count(*) from items) as i, (select count(*) from stock_movements) as m')
      ).rows;
    const before = await count();
    await seedInventory(world.database(neighbour), theirs);
    expect(await count()).toEqual(before);
  });
});
