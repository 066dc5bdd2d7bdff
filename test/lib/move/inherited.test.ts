import { afterAll, beforeAll, expect, it } from 'vitest';
import { sql } from '../../../functions/lib/database/sql.ts';
import { planMove } from '../../../functions/lib/lifecycle/move-plan.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';
import { begin, step } from '../lifecycle/move.support.ts';

let world: World;
beforeAll(async () => {
  const migration = parseMigration(
    '9503-inherited.sql',
    `create table papers (tenant_id uuid not null, paper_id integer not null, primary key (tenant_id, paper_id));
     create table letters (sender text, primary key (tenant_id, paper_id)) inherits (papers);`,
  );
  world = await startWorld({ migrations: [migration] });
}, 120_000);
afterAll(() => world?.close());

it.each(strategies)(
  'tables that others inherit from are refused before anything is copied, in %s',
  async (from) => {
    const tenant = await world.addTenant(from);
    await world.database(tenant).query(sql`insert into letters (paper_id, sender) values (1, 'x')`);
    const to = from === 'schema' ? 'rls' : 'schema';
    const { blocks } = await world.asProvisioner('catalog', (catalog) =>
      planMove(world.plane, catalog, { slug: tenant.slug, to, placement: 'shared-cluster' }),
    );
    expect(blocks).toEqual([expect.stringContaining('inherit from papers')]);
    const operation = await begin(world, tenant.slug, to);
    await expect(step(world, operation, 'prepare')).rejects.toMatchObject({
      code: 'move_refused',
      message: expect.stringContaining('inherit from papers'),
    });
    await step(world, operation, 'cancel', { failedStep: 'prepare' });
  },
);
