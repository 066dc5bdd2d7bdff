import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { strategies } from '../../support/world.ts';
import { type Leaving, startLeaving } from '../lifecycle/leaving.ts';
import { folders } from './folders.ts';
import { transfersOf } from './transfers.ts';

/** What an export has written, or an import has read, is cleared away while the operation is still under way. */
let leaving: Leaving;
beforeAll(async () => {
  leaving = await startLeaving();
});
afterAll(() => leaving?.world.close());

const folder = folders('lost-files');
const { step, exportTo, importFrom } = transfersOf(() => leaving.world);

describe.each(strategies)('%s', (strategy) => {
  it('an export whose first files are gone writes no manifest', async () => {
    const tenant = await leaving.world.addTenant(strategy);
    await leaving.fill(tenant.id);
    const path = folder();
    const operation = await exportTo(tenant, path);
    // Its time is up after each file.
    let ms = 0;
    await expect(step(operation, 'exportTenant', { clock: () => (ms += 8 * 60_000) })).rejects.toThrow(
      '1 files are',
    );
    rmSync(join(path, operation), { recursive: true });
    await expect(step(operation, 'exportTenant')).rejects.toMatchObject({
      name: 'ExportRefused',
      message: expect.stringMatching(/^\w+\.csv was written, and is gone from file:.* Export again\.$/),
    });
  });

  it('an import is done when its rows are there, whatever has become of its files', async () => {
    const tenant = await leaving.world.addTenant(strategy);
    await leaving.fill(tenant.id);
    const path = folder();
    const exported = await exportTo(tenant, path);
    for (const name of ['exportTenant', 'finish']) await step(exported, name);
    const from = join(path, exported);
    const whole = readFileSync(join(from, 'manifest.json'));
    for (const lose of [
      () => writeFileSync(join(from, 'manifest.json'), '{"format": "tenan'),
      () => rmSync(from, { recursive: true }),
    ]) {
      writeFileSync(join(from, 'manifest.json'), whole);
      const target = await leaving.world.addTenant(strategy);
      const operationId = await importFrom(target, from, true);
      await step(operationId, 'importTenant');
      lose();
      // Its answer was lost.
      for (const name of ['importTenant', 'finish']) await step(operationId, name);
      expect((await leaving.read(operationId)).state).toBe('done');
      const notes = await (await leaving.databaseOf(target.id)).query('select from notes');
      expect(notes.rowCount).toBe(2);
    }
  });
});
