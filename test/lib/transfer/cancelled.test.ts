import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { auditOperations } from '../../../functions/lib/health/upkeep.ts';
import { askToCancel } from '../../../functions/lib/lifecycle/cancel.ts';
import type { Operation } from '../../../functions/lib/lifecycle/operations.ts';
import { runStep, type StepEvent } from '../../../functions/lib/lifecycle/step.ts';
import {
  beginExport,
  beginImport,
  transferKinds,
  transferSteps,
} from '../../../functions/lib/lifecycle/transfer.ts';
import { FunctionError } from '../../../infra/local/lambda/environment.ts';
import { runProductMachine } from '../../support/machine.ts';
import { strategies, type TestTenant } from '../../support/world.ts';
import { type Leaving, startLeaving } from '../lifecycle/leaving.ts';
import { folders } from './folders.ts';

/** What ends an export or an import without its having failed. */
let leaving: Leaving;
beforeAll(async () => {
  leaving = await startLeaving();
});
afterAll(() => leaving?.world.close());

const folder = folders('cancelled');
const begun = ({ operationId }: Operation) => operationId;

const exportOf = ({ id, slug }: TestTenant, path: string) =>
  leaving.catalog((catalog) => beginExport(catalog, id, { slug, to: pathToFileURL(path).href })).then(begun);
const importInto = ({ id, slug }: TestTenant, path: string) => {
  const request = { slug, from: pathToFileURL(path).href, otherTenant: true };
  return leaving.catalog((catalog) => beginImport(catalog, id, request)).then(begun);
};
const step = (event: StepEvent) =>
  runStep({ plane: leaving.world.plane, clock: Date.now }, event, transferKinds, transferSteps);
const runMachine = async (kind: 'export' | 'import', operation: string) => {
  const input = { operation, input: {} };
  const invoke = (_: string, payload: unknown) =>
    step(payload as StepEvent).catch(({ name, message, stack }: Error) => {
      throw new FunctionError(name, message, stack);
    });
  return (await runProductMachine(`${kind}-tenant`, { input, clockFactor: 1e-3, invoke })).status;
};
async function exported(tenant: TestTenant): Promise<string> {
  await leaving.fill(tenant.id);
  const path = folder();
  const operation = await exportOf(tenant, path);
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
    const operation = await (kind === 'export' ? exportOf(tenant, path) : importInto(target, path));
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
    const operation = await exportOf(tenant, path);
    // Its time is up after each file, and then somebody has had enough.
    let ms = 0;
    const clock = () => (ms += 8 * 60_000);
    const event = { operation, step: 'exportTenant', input: {} };
    const one = { plane: leaving.world.plane, clock };
    await expect(runStep(one, event, transferKinds, transferSteps)).rejects.toThrow('1 files are written');
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
    const operation = await importInto(target, path);
    // Its answer is lost, and the machine runs it again.
    await step({ operation, step: 'importTenant', input: {} });
    await leaving.catalog((catalog) => askToCancel(catalog, operation));
    expect(await runMachine('import', operation)).toBe('SUCCEEDED');
    expect(await leaving.read(operation)).toMatchObject({ state: 'done', result: { rows: { notes: 2 } } });
  });

  it('files that an import refuses are no failure of ours', async () => {
    const path = await exported(await leaving.world.addTenant(strategy));
    rmSync(join(path, 'notes.csv'));
    const target = await leaving.world.addTenant(strategy);
    const operation = await importInto(target, path);
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
  const operation = await exportOf(tenant, folder());
  const failure = { Error: 'Error', Cause: '{"errorMessage": "the disk is full"}' };
  await step({ operation, step: 'recordFailure', input: { failedStep: 'exportTenant', failure } });
  const { findings } = await leaving.catalog(auditOperations);
  expect(findings.find(({ object }) => object === `export ${tenant.slug}`)).toMatchObject({
    finding: 'failed at exportTenant: the disk is full',
    remedy: `npm run tenants -- operations ${operation}`,
  });
});
