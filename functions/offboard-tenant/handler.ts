import { seenInstances } from '../lib/aws/rds.ts';
import { createControlPlane } from '../lib/lifecycle/control-plane.ts';
import { type Offboarder, offboardSteps } from '../lib/lifecycle/offboard.ts';
import { runStep, type StepEvent } from '../lib/lifecycle/step.ts';
import { renewedFromStart } from '../lib/renewed.ts';
import { readOffboardSettings } from '../lib/settings.ts';

const settings = readOffboardSettings();
const current = await renewedFromStart(
  async (): Promise<Offboarder> => ({
    plane: await createControlPlane(settings),
    instances: seenInstances,
    clock: Date.now,
  }),
);

/** The steps of `stepfunctions/offboard-tenant.asl.json`. */
export const handler = (event: StepEvent): Promise<unknown> =>
  runStep(current(), event, ['offboard'], offboardSteps);
