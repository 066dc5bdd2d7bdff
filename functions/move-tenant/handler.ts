import { createControlPlane } from '../lib/lifecycle/control-plane.ts';
import { type Mover, moveSteps } from '../lib/lifecycle/move.ts';
import { probeTenant } from '../lib/lifecycle/probe.ts';
import { runStep, type StepEvent } from '../lib/lifecycle/step.ts';
import { readRelease } from '../lib/migrations/release.ts';
import { renewedFromStart } from '../lib/renewed.ts';
import { readMigrateSettings } from '../lib/settings.ts';

const settings = readMigrateSettings();
const current = await renewedFromStart(async (): Promise<Mover> => {
  const plane = await createControlPlane(settings);
  return {
    plane,
    release: await readRelease(plane),
    probe: (tenant) => probeTenant(settings.mcpFunction, tenant),
    clock: Date.now,
  };
});

/** The steps of `stepfunctions/move-tenant.asl.json`. */
export const handler = (event: StepEvent): Promise<unknown> => runStep(current(), event, ['move'], moveSteps);
