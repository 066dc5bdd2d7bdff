import { createControlPlane } from '../lib/lifecycle/control-plane.ts';
import { type Migrator, migrateSteps, turnOf } from '../lib/lifecycle/migrate.ts';
import { workers } from '../lib/lifecycle/migrate-work.ts';
import { probeTenant } from '../lib/lifecycle/probe.ts';
import { runStep, type StepEvent } from '../lib/lifecycle/step.ts';
import { readRelease } from '../lib/migrations/release.ts';
import { renewedFromStart } from '../lib/renewed.ts';
import { readMigrateSettings } from '../lib/settings.ts';

const settings = readMigrateSettings();
const current = await renewedFromStart(async (): Promise<Migrator> => {
  const plane = await createControlPlane(settings);
  return {
    plane,
    release: await readRelease(plane),
    probe: (tenant) => probeTenant(settings.mcpFunction, tenant),
    workers,
    clock: Date.now,
  };
});

/** The steps of `stepfunctions/migrate-tenants.asl.json`. Workers run beside each other, each slot once. */
export const handler = (event: StepEvent): Promise<unknown> =>
  runStep(current(), event, ['migrate'], migrateSteps, turnOf);
