import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { homesOf } from '../../../functions/lib/catalog/tenants.ts';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { endOperation } from '../../../functions/lib/lifecycle/operations.ts';
import { strategies } from '../../support/world.ts';
import { type Leaving, startLeaving, steps } from '../lifecycle/leaving.ts';
import { folders } from './folders.ts';
import { transfersOf } from './transfers.ts';

/** An import whose operation ended while its function went on: by the time it commits, its tenant may be gone. */
let leaving: Leaving;
beforeAll(async () => {
  leaving = await startLeaving();
});
afterAll(() => leaving?.world.close());

const folder = folders('late-import');
const { step: run, exportTo, importFrom } = transfersOf(() => leaving.world);

it.each(strategies)('leaves nothing of a tenant that is offboarded meanwhile: %s', async (strategy) => {
  const { catalog, world, lifecycle } = leaving;
  const source = await leaving.tenantOf(strategy, 'shared-cluster');
  const path = folder();
  const exporting = await exportTo({ id: source.tenant, slug: source.slug }, path);
  for (const step of ['exportTenant', 'finish']) await run(exporting, step);
  const from = join(path, exporting);

  const before = await leaving.everything();
  const { tenant, slug } =
    strategy === 'rls'
      ? await world.addTenant('rls').then(({ id, slug }) => ({ tenant: id, slug }))
      : await lifecycle.provisioned(strategy, 'shared-cluster');
  const [home] = await catalog((c) => homesOf(c, tenant));
  const operationId = await importFrom({ id: tenant, slug }, from, true);
  let isShut = false;
  const { imported, offboarding } = await withConnection(world.superuser(home!.database), async (other) => {
    // A row of the same key, by somebody who has not committed yet: the import waits for it.
    const [columns, row] = (await readFile(join(from, 'marks.csv'), 'utf8')).split('\n');
    await other.query(`begin; set local session_replication_role = replica;
      insert into ${home!.schema}.marks (tenant_id, ${columns}) values ('${tenant}', '${row!.replaceAll(',', "','")}')`);
    const imported = run(operationId, 'importTenant').catch((error: Error) => error);
    await expect
      .poll(() => other.query("select from pg_stat_activity where wait_event = 'transactionid'"))
      .toMatchObject({ rowCount: 1 });
    // Its execution was stopped, and whoever looked has ended the operation.
    await catalog((c) =>
      endOperation(c, operationId, { state: 'failed', step: 'importTenant', reason: 'planned' }),
    );
    const offboarding = await leaving.begin(tenant, slug);
    const leaves = leaving.run(offboarding, 'suspend').then(() => {
      isShut = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect(isShut).toBe(false);
    await other.query('rollback');
    await leaves;
    return { imported: await imported, offboarding };
  });
  expect(imported).toMatchObject({ code: 'operation_ended' });
  for (const step of steps) await leaving.run(offboarding, step);
  expect(await leaving.everything()).toEqual(before);
});
