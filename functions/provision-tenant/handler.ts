import { createInstances } from '../lib/aws/rds.ts';
import { abandon, compensate } from '../lib/lifecycle/compensate.ts';
import { createControlPlane } from '../lib/lifecycle/control-plane.ts';
import { moveInstanceSteps } from '../lib/lifecycle/move-instance.ts';
import { instanceSteps } from '../lib/lifecycle/offboard.ts';
import { probeTenant } from '../lib/lifecycle/probe.ts';
import { type Provisioner, provisionSteps } from '../lib/lifecycle/provision.ts';
import { runStep, type StepEvent } from '../lib/lifecycle/step.ts';
import { readRelease } from '../lib/migrations/release.ts';
import { renewedFromStart } from '../lib/renewed.ts';
import { readControlSettings } from '../lib/settings.ts';

const settings = readControlSettings();
const instances = createInstances(settings.instance);
const current = await renewedFromStart(async (): Promise<Provisioner> => {
  const plane = await createControlPlane(settings);
  return {
    plane,
    instances,
    region: settings.region,
    release: await readRelease(plane),
    probe: (tenant) => probeTenant(settings.mcpFunction, tenant),
  };
});

/** The steps of `stepfunctions/provision-tenant.asl.json`, and those of `offboard-tenant` and `move-tenant` that make and delete instances. */
export function handler(event: StepEvent): Promise<unknown> {
  const provisioner = current();
  if (Object.hasOwn(instanceSteps, event.step))
    return runStep(provisioner, event, ['offboard'], instanceSteps);
  if (Object.hasOwn(moveInstanceSteps, event.step))
    return runStep(provisioner, event, ['move'], moveInstanceSteps);
  return runStep(provisioner, event, ['provision'], { ...provisionSteps, compensate, abandon });
}
