import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { auditOperations } from '../../../functions/lib/health/upkeep.ts';
import { askToCancel } from '../../../functions/lib/lifecycle/cancel.ts';
import type { StepEvent } from '../../../functions/lib/lifecycle/step.ts';
import { FunctionError } from '../../../infra/local/lambda/environment.ts';
import { runProductMachine } from '../../support/machine.ts';
import { strategies, type TestTenant } from '../../support/world.ts';
import { type Leaving, startLeaving } from '../lifecycle/leaving.ts';
import { folders } from './folders.ts';
import { transfersOf } from './transfers.ts';

/** What ends an export or an import without its having failed. */
let leaving: Leaving;
beforeAll(async () => {
  leaving = await startLeaving();
});
afterAll(() => leaving?.world.close());

const folder = folders('cancelled');
const { step, exportTo, importFrom } = transfersOf(() => leaving.world);
const runMachine = async (kind: 'export' | 'import', operation: string) => {
  const input = { operation, input: {} };
  const invoke = (_: string, payload: unknown) => {
    const { operation, step: name, input } = payload as StepEvent;
    return step(operation, name, { input }).catch(({ name, message, stack }: Error) => {
      throw new FunctionError(name, message, stack);
    });
  };
  return (await runProductMachine(`${kind}-tenant`, { input, clockFactor: 1e-3, invoke })).status;
};
async function exported(tenant: TestTenant): Promise<string> {
  await leaving.fill(tenant.id);
  const path = folder();
  const operation = await exportTo(tenant, path);
  await runMachine('export', operation);
  return join(path, operation);
}
const notes = async ({ id }: TestTenant) =>
  (await (await leaving.databaseOf(id)).query('select from notes')).rowCount;
const failed = () => leaving.catalog(auditOperations).then(({ failed }) => failed);

describe.each(strategies)('%s', (strategy) => {
  it.each(['export', 'import'] as const)('an operator cancels an %s', async (kind) => {
    const tenant = await leaving.world.addTenant(strategy);
    const target = await leaving.world.addTenant(strategy);
    const path = await exported(tenant);
    const before = await leaving.everything();
    const operation = await (kind === 'export' ? exportTo(tenant, path) : importFrom(target, path, true));
    expect(await leaving.catalog((catalog) => askToCancel(catalog, operation))).toBe(true);
    expect(await runMachine(kind, operation)).toBe('SUCCEEDED');
    expect(await leaving.read(operation)).toMatchObject({
      state: 'cancelled',
      reason: expect.stringMatching(/^An operator has cancelled it\. (It had written n|N)othing/),
    });
    expect(await leaving.everything()).toEqual(before);
    expect(existsSync(join(path, operation))).toBe(false);
    expect(await notes(target)).toBe(0);
    expect(await failed()).toBe(0);
    expect(await leaving.catalog((catalog) => askToCancel(catalog, operation))).toBe(false);
  });

  it('an export that is cancelled after its first file names what it leaves', async () => {
    const tenant = await leaving.world.addTenant(strategy);
    await leaving.fill(tenant.id);
    const path = folder();
    const operation = await exportTo(tenant, path);
    // Its time is up after each file, and then somebody has had enough.
    let ms = 0;
    const clock = () => (ms += 8 * 60_000);
    await expect(step(operation, 'exportTenant', { clock })).rejects.toThrow('1 files are written');
    await leaving.catalog((catalog) => askToCancel(catalog, operation));
    expect(await runMachine('export', operation)).toBe('SUCCEEDED');
    const [file, ...others] = readdirSync(join(path, operation));
    expect(others).toEqual([]);
    expect((await leaving.read(operation)).reason).toBe(
      `An operator has cancelled it. Without a manifest no import takes what it has written. Remove it yourself, at ${pathToFileURL(join(path, operation)).href}: ${file}`,
    );
  });

  it('an import whose rows are there already when it is cancelled is done', async () => {
    const target = await leaving.world.addTenant(strategy);
    const path = await exported(await leaving.world.addTenant(strategy));
    const operation = await importFrom(target, path, true);
    // Its answer is lost, and the machine runs it again.
    await step(operation, 'importTenant');
    await leaving.catalog((catalog) => askToCancel(catalog, operation));
    expect(await runMachine('import', operation)).toBe('SUCCEEDED');
    expect(await leaving.read(operation)).toMatchObject({ state: 'done', result: { rows: { notes: 2 } } });
  });

  it('files that an import refuses are no failure of ours', async () => {
    const path = await exported(await leaving.world.addTenant(strategy));
    rmSync(join(path, 'notes.csv'));
    const target = await leaving.world.addTenant(strategy);
    const operation = await importFrom(target, path, true);
    expect(await runMachine('import', operation)).toBe('SUCCEEDED');
    expect(await leaving.read(operation)).toMatchObject({
      state: 'failed',
      failedStep: 'importTenant',
      reason: 'The file notes.csv is missing.',
    });
    expect(await failed()).toBe(0);
  });
});

it('an export that failed is told with the command that says why', async () => {
  const tenant = await leaving.world.addTenant('rls');
  const operation = await exportTo(tenant, folder());
  const failure = { Error: 'Error', Cause: '{"errorMessage": "the disk is full"}' };
  await step(operation, 'recordFailure', { input: { failedStep: 'exportTenant', failure } });
  const { findings } = await leaving.catalog(auditOperations);
  expect(findings.find(({ object }) => object === `export ${tenant.slug}`)).toMatchObject({
    finding: 'failed at exportTenant: the disk is full',
    remedy: `npm run tenants -- operations ${operation}`,
  });
});
