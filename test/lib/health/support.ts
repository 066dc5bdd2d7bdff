import { setTimeout } from 'node:timers/promises';
import { listInstances } from '../../../functions/lib/aws/rds.ts';
import { type HealthRun, runCanary } from '../../../functions/lib/health/run.ts';
import type { Watch } from '../../../functions/lib/health/watch.ts';
import { parseMasterKeys } from '../../../functions/lib/isolation/context.ts';
import {
  type Provisioner,
  provisionOperation,
  provisionSteps,
} from '../../../functions/lib/lifecycle/provision.ts';
import { runStep } from '../../../functions/lib/lifecycle/step.ts';
import { probeTool } from '../../../functions/lib/mcp/probe.ts';
import type { TenantId } from '../../../functions/lib/tenant/tenant.ts';
import { limits, type World } from '../../support/world.ts';

export const signingKeySecret = 'tenancy/api-key-signing';

/** What the canary works with in a world; the probe is the tool itself, the state machine its steps one after the other. */
export function watchOf(world: World, isRds = false): Watch {
  const { plane, secrets } = world;
  const access = world.access();
  async function probe(tenant: TenantId): Promise<void> {
    const principal = { tenant, principal: 'tenantry', scopes: '', auth: 'verify' };
    const route = await access.resolve(principal);
    const db = access.database(principal, route, limits('w'));
    await probeTool.run({ marker: tenant }, { db, tenant: { id: tenant, slug: route.slug } } as never);
  }
  const unused = () => Promise.reject(new Error('A canary has no instance.'));
  const instances = { create: unused, ready: unused, remove: unused, status: unused };
  const provisioner: Provisioner = { plane, instances, region: 'eu-west-1', release: world.release, probe };
  return {
    plane,
    secrets,
    readKeys: async () => parseMasterKeys(await secrets.read('tenancy/context-key', true)),
    instances: isRds ? listInstances : async () => [],
    probe,
    async provision(operation) {
      for (const step of ['reserve', 'createHome', 'migrate', 'verify', 'activate'])
        await runStep(provisioner, { operation, step, input: {} }, provisionOperation, provisionSteps);
    },
  };
}

/** On a machine that is too busy for a handshake, or for the last run to end, again: that is not what is tried here. */
export async function runOnce(watch: Watch, attempt = 1): Promise<HealthRun> {
  const run = await runCanary(watch, signingKeySecret);
  const isBusy = !run || told(run).some((line) => /timeout expired|no answer within/.test(line));
  if (!isBusy) return run;
  if (attempt === 5)
    throw new Error(`No run was finished: ${run ? told(run) : 'another one was under way.'}`);
  await setTimeout(1_000);
  return runOnce(watch, attempt + 1);
}

/** Makes the canaries, which the first run only asks for, and sees them once. */
export async function startWatching(world: World, isRds = false): Promise<Watch> {
  await world.secrets.write(signingKeySecret, '{}');
  const watch = watchOf(world, isRds);
  await runOnce(watch);
  return watch;
}

/** Short enough to read in a failed assertion. */
export const told = ({ report }: HealthRun) =>
  report.findings.map(({ check, object, finding }) => `${check}: ${object} ${finding}`);
