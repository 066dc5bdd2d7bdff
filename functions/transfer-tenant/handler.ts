import { createControlPlane } from '../lib/lifecycle/control-plane.ts';
import { runStep, type StepEvent } from '../lib/lifecycle/step.ts';
import { type Transferrer, transferKinds, transferSteps } from '../lib/lifecycle/transfer.ts';
import { renewedFromStart } from '../lib/renewed.ts';
import { readOffboardSettings } from '../lib/settings.ts';

const settings = readOffboardSettings();
const current = await renewedFromStart(
  async (): Promise<Transferrer> => ({ plane: await createControlPlane(settings), clock: Date.now }),
);

/** The steps of the state machines that export and import: the only hand on the storage of exports. */
export const handler = (event: StepEvent): Promise<unknown> =>
  runStep(current(), event, transferKinds, transferSteps);
