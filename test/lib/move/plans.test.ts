import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { moving } from '../../../functions/lib/lifecycle/move-turn.ts';
import { byKey } from '../../../functions/lib/move/catch-up.ts';
import { adding, deletingGone, updating } from '../../../functions/lib/move/in-place.ts';
import { fromKeys, hashes, type Keys, keyLiteral, sameKey } from '../../../functions/lib/move/rows.ts';
import { reading, type Side } from '../../../functions/lib/move/side.ts';
import { stagedName } from '../../../functions/lib/move/staging.ts';
import { startWorld, type World } from '../../support/world.ts';
import { begin, moverOf, step, tenantWithNotes } from '../lifecycle/move.support.ts';
import { ways } from './shapes.support.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.close());

/** What is wrong shows in minutes only: row security lets no index find what stands beside a cast, and costs of what is switched off mislead. */
it.each(ways)('from %s to %s a changed row is found by its whole key, on both sides', async (from, to) => {
  const tenant = await tenantWithNotes(world, from, 3_000);
  const operation = await begin(world, tenant.slug, to);
  for (const name of ['prepare', 'capture', 'copy', 'land'] as const) await step(world, operation, name);
  await world.asProvisioner('catalog', (catalog) =>
    moving(moverOf(world), catalog, operation, async ({ source, target, tables }) => {
      const place = tables.findIndex(({ name }) => name === 'notes');
      const notes = tables[place]!;
      const key = JSON.stringify({ tenant_id: tenant.id, note_id: randomUUID() });
      const keys: Keys = new Map([[notes, new Set(Array.from({ length: 50 }, () => key))]]);
      const literal = keyLiteral(new Set([key]));
      const staged = `${stagedName(target, place)} s`;
      const asked = [
        hashes(keys, () => literal),
        `delete from notes t using ${fromKeys(notes, literal)} where ${sameKey(notes)}`,
      ];
      const changed = [updating(notes, staged), adding(notes, staged), deletingGone(notes, literal, staged)];
      for (const [side, statements] of [
        [source, asked],
        [target, [...asked, ...changed]],
      ] as const)
        for (const statement of statements) {
          const plan = await planOf(side, statement);
          const scans = plan.filter((line) => /Scan .*\bon notes t\b/.test(line));
          expect(scans.length, plan.join('\n')).toBeGreaterThan(0);
          for (const scan of scans)
            expect(plan[plan.indexOf(scan) + 1], plan.join('\n')).toMatch(/Index Cond: .*\bnote_id = /);
        }
    }),
  );
  await step(world, operation, 'cancel', { failedStep: 'land' });
});

const planOf = (side: Side, statement: string): Promise<string[]> =>
  reading(
    side,
    async () => {
      const { rows } = await side.connection.query<Record<string, string>>(
        `explain (costs off) ${statement}`,
      );
      return rows.map((row) => row['QUERY PLAN']!);
    },
    byKey,
  );
