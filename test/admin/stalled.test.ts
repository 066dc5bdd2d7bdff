import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { SFNClient, StopExecutionCommand } from '@aws-sdk/client-sfn';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createWorkflows } from '../../functions/lib/aws/step-functions.ts';
import { provisionCanary } from '../../functions/lib/health/canaries.ts';
import { abandon, compensate } from '../../functions/lib/lifecycle/compensate.ts';
import { provisionSteps } from '../../functions/lib/lifecycle/provision.ts';
import { operationLock, runStep, type StepEvent } from '../../functions/lib/lifecycle/step.ts';
import { transferKinds, transferSteps } from '../../functions/lib/lifecycle/transfer.ts';
import { functions } from '../../infra/functions.ts';
import { machineSubstitutions } from '../../infra/local/emulator/lambda-invoke.ts';
import { type AwsEmulator, startAwsEmulator } from '../../infra/local/emulator/server.ts';
import { FunctionError } from '../../infra/local/lambda/environment.ts';
import { loadMachines } from '../../infra/local/state-machines/definition.ts';
import { lifecycleOf } from '../lib/lifecycle/support.ts';
import { type AdminWorld, code, startAdmin } from './support.ts';

/** Operations whose state machine was killed, by those who look. The machines run; the functions are the steps, in-process. */
let admin: AdminWorld;
let emulator: AwsEmulator;
let held: { step: string; reached: () => void } | undefined;
let folder: string;

beforeAll(async () => {
  admin = await startAdmin();
  folder = mkdtempSync(join(tmpdir(), 'tenantry-stalled-'));
  const stepfunctions = fileURLToPath(new URL('../../stepfunctions', import.meta.url));
  const { provisioner } = lifecycleOf(admin.world);
  const invoke = async (name: string, event: unknown) => {
    const { step } = event as StepEvent;
    // A function that never comes back: the machine waits for it until it is stopped.
    if (held?.step === step) {
      held.reached();
      return new Promise(() => {});
    }
    try {
      if (name === 'transfer-tenant')
        return await runStep(
          { plane: admin.world.plane, clock: Date.now },
          event as StepEvent,
          transferKinds,
          transferSteps,
        );
      const steps = { ...provisionSteps, compensate, abandon };
      return await runStep(provisioner, event as StepEvent, ['provision'], steps);
    } catch (error) {
      throw new FunctionError((error as Error).name, (error as Error).message);
    }
  };
  emulator = await startAwsEmulator({
    functions: {
      rows: functions,
      host: () => ({ invoke, stream: () => Promise.reject(new Error('unused')) }),
    },
    stateMachines: {
      machines: await loadMachines(stepfunctions, machineSubstitutions(functions, 'eu-west-1')),
      region: 'eu-west-1',
      clockFactor: 0.001,
    },
  });
  process.env.AWS_ENDPOINT_URL_SFN = emulator.url;
  const machine = (name: string) => emulator.executions!.machineArn(name);
  Object.assign(admin.admin, { workflows: createWorkflows() });
  Object.assign(admin.admin.settings, {
    provisionMachine: machine('provision-tenant'),
    exportMachine: machine('export-tenant'),
    transferSchemes: ['file'],
  });
});
afterAll(async () => {
  delete process.env.AWS_ENDPOINT_URL_SFN;
  await emulator?.close();
  await admin?.world.close();
  rmSync(folder, { recursive: true, force: true });
});

/** Runs `begin`, and kills the execution while the step is at work; then makes the operation look quiet for a while. */
async function killedAt(step: string, machine: string, begin: () => Promise<string>): Promise<string> {
  const reached = new Promise<void>((resolve) => {
    held = { step, reached: resolve };
  });
  const operation = await begin();
  await reached;
  held = undefined;
  await stop(machine, operation);
  for (const statement of [
    "update catalog.operations set started_at = started_at - interval '1 minute' where operation_id = $1",
    `update catalog.operation_steps set started_at = started_at - interval '1 minute', finished_at = finished_at - interval '1 minute'
      where operation_id = $1`,
  ])
    await admin.world.asProvisioner('catalog', (catalog) => catalog.query(statement, [operation]));
  return operation;
}

async function stop(machine: string, execution: string): Promise<void> {
  const arn = `${emulator.executions!.machineArn(machine).replace(':stateMachine:', ':execution:')}:${execution}`;
  await new SFNClient({}).send(new StopExecutionCommand({ executionArn: arn, error: 'Killed' }));
}

const show = async (operation: string) => (await admin.ask('GET', `/operations/${operation}`)).body;

it('ends an export whose machine was killed, and lets the next one through', async () => {
  const to = (name: string) => pathToFileURL(join(folder, name)).href;
  const begin = async (name: string) =>
    (await admin.ask('POST', '/tenants/rls-a/export', { to: to(name) })).body;
  const operation = await killedAt(
    'exportTenant',
    'export-tenant',
    async () => (await begin('one')).operation.id,
  );
  // Another request finds the dead one in its way, and has it ended.
  expect((await begin('two')).error.code).toBe('operation_running');
  await expect
    .poll(() => show(operation))
    .toMatchObject({
      state: 'failed',
      reason: expect.stringContaining('was stopped'),
    });
  const next = (await begin('two')).operation.id;
  await expect.poll(async () => (await show(next)).state).toBe('done');
});

it('takes back what a killed provisioning has made, and provisions again', async () => {
  const { inventory, provisioner } = lifecycleOf(admin.world);
  expect(provisioner.plane).toBe(admin.world.plane);
  const create = async () => (await admin.ask('POST', '/tenants', { slug: 'killed-one', tier: 'pro' })).body;
  const before = await inventory();
  const operation = await killedAt('verify', 'provision-tenant', async () => (await create()).operation.id);
  expect((await inventory()).length).toBeGreaterThan(before.length);
  const { body } = await admin.ask('GET', '/operations');
  expect(body.operations.map(({ id }: { id: string }) => id)).toContain(operation);
  await expect
    .poll(() => show(operation))
    .toMatchObject({
      state: 'failed',
      failedStep: 'migrate',
      reason: expect.stringContaining('was stopped'),
    });
  expect(await inventory()).toEqual(before);
  const again = await create();
  expect(again.operation.id).not.toBe(operation);
  await expect.poll(async () => (await show(again.operation.id)).step).toBe('activate');
  await expect.poll(async () => (await show(again.operation.id)).state).toBe('done');
});

it('ends a canary of shared tables whose machine was killed: nobody else would, and its walls would go untried', async () => {
  const canary = { slug: 'canary-rls-a', strategy: 'rls' } as const;
  const { workflows, settings } = admin.admin;
  let operation = '';
  const provision = async (id: string) => {
    operation = id;
    await workflows.start(settings.provisionMachine, id, { operation: id, input: { placement: 'shared' } });
  };
  const run = () =>
    admin.world.asProvisioner('catalog', (catalog) => provisionCanary({ provision }, catalog, canary));
  await killedAt('verify', 'provision-tenant', async () => {
    await run();
    return operation;
  });
  await expect.poll(() => show(operation)).toMatchObject({ state: 'failed' });
  // Nobody else can make one: `create` would refuse its slug.
  const { why, run: commands } = (await admin.ask('GET', `/tenants/${canary.slug}/why`)).body;
  expect([why, commands]).toEqual([
    expect.stringContaining('The watch makes it again'),
    ['npm run tenants -- health'],
  ]);
});

it('ends an operation that never got its machine, and leaves one alone that has just begun', async () => {
  const original = admin.admin.workflows;
  const lost = { ...original, start: () => Promise.reject(new Error('died')) };
  Object.assign(admin.admin, { workflows: lost });
  await admin.ask('POST', '/tenants', { slug: 'never-begun', tier: 'pro' });
  Object.assign(admin.admin, { workflows: original });
  const operation = (await admin.ask('GET', '/tenants/never-begun')).body.operation.id;
  const age = (seconds: number) =>
    admin.world.asProvisioner('catalog', (catalog) =>
      catalog.query(
        'update catalog.operations set started_at = now() - make_interval(secs => $2) where operation_id = $1',
        [operation, seconds],
      ),
    );
  await age(30);
  expect((await show(operation)).state).toBe('running');
  await age(90);
  await expect.poll(async () => (await show(operation)).state).toBe('failed');
  expect((await admin.ask('GET', '/tenants/never-begun/why')).body.status).toBe('failed');
});

it('shows an attempt whose process died as failed, once another has begun or the operation has ended', async () => {
  const id = randomUUID();
  const run = (statement: string, ...values: unknown[]) =>
    admin.world.asProvisioner('catalog', (catalog) => catalog.query(statement, [id, ...values]));
  const attempts = async () => (await show(id)).steps.map(({ outcome }: { outcome: string }) => outcome);
  await run(
    `insert into catalog.operations (operation_id, kind, tenant_id, input, request_digest) values ($1, 'export', $2, '{}', '')`,
    admin.world.tenants.rls.b.id,
  );
  await run(`insert into catalog.operation_steps (operation_id, step, attempt, started_at)
    values ($1, 'exportTenant', 1, now() - interval '2 s'), ($1, 'exportTenant', 2, now() - interval '1 s')`);
  expect(await attempts()).toEqual(['failed', 'running']);
  await run("update catalog.operations set state = 'failed', finished_at = now() where operation_id = $1");
  expect(await attempts()).toEqual(['failed', 'failed']);
  expect((await show(id)).steps[0].reason).toBe('Its process ended before it had an answer.');
});

it('does not end an operation whose step is at work, whatever became of its machines', async () => {
  const begin = (to: string) =>
    admin.ask('POST', '/tenants/rls-a/export', { to: pathToFileURL(join(folder, to)).href });
  const operation = await killedAt(
    'exportTenant',
    'export-tenant',
    async () => (await begin('three')).body.operation.id,
  );
  // The last execution is stopped too, before it has recorded anything.
  const reached = new Promise<void>((resolve) => {
    held = { step: 'recordFailure', reached: resolve };
  });
  const { sql, values } = operationLock(operation);
  await admin.world.asProvisioner('catalog', async (step) => {
    await step.query(`select pg_advisory_lock(${sql})`, values);
    expect((await show(operation)).state).toBe('running');
    await reached;
    held = undefined;
    await stop('export-tenant', `${operation}-end`);
    expect((await show(operation)).state).toBe('running');
    expect(code(await begin('four'))).toEqual([409, 'operation_running']);
  });
  expect(await show(operation)).toMatchObject({
    state: 'failed',
    reason: expect.stringContaining('was stopped'),
  });
});
