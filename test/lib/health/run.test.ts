import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Watch } from '../../../functions/lib/health/watch.ts';
import { startWorld, strategies, type World } from '../../support/world.ts';
import { runOnce, startWatching, told } from './support.ts';

let world: World;
let watch: Watch;
beforeAll(async () => {
  world = await startWorld();
  watch = await startWatching(world);
});
afterAll(() => world?.close());

describe('a healthy system', () => {
  it('is green in every check, run after run, with two canaries of each strategy in use', async () => {
    for (let round = 0; round < 3; round += 1) {
      const run = await runOnce(watch);
      expect(told(run)).toEqual([]);
      expect(run.state).toBe('ok');
      expect(run.report.strategies).toEqual(strategies);
    }
    const { rows } = await world.asProvisioner('catalog', (catalog) =>
      catalog.query('select slug, status from catalog.tenants where is_canary order by slug'),
    );
    const slugs = ['database', 'rls', 'schema'].flatMap((name) => [`canary-${name}-a`, `canary-${name}-b`]);
    expect(rows).toEqual(slugs.map((slug) => ({ slug, status: 'active' })));
  });
});
