import { createAccess } from '../../../functions/lib/isolation/access.ts';
import { createControlPlane } from '../../../functions/lib/lifecycle/control-plane.ts';
import { type Mover, moveSteps } from '../../../functions/lib/lifecycle/move.ts';
import { runStep, type StepEvent } from '../../../functions/lib/lifecycle/step.ts';
import { readRelease } from '../../../functions/lib/migrations/release.ts';
import type { MoverSettings } from './mover-process.ts';
import { probeThrough } from './probe.support.ts';

/** `functions/move-tenant/handler.ts` with the tables of a test's world instead of the deployment's. */
const { files, mcp, ...settings }: MoverSettings = JSON.parse(process.env.MOVER!);
const plane = await createControlPlane(settings);
const release = {
  ...(await readRelease(plane)),
  home: files,
};
const mover: Mover = {
  plane,
  release,
  probe: (tenant) => probeThrough(createAccess({ settings: mcp }), tenant),
  clock: Date.now,
};

export const handler = (event: StepEvent): Promise<unknown> => runStep(mover, event, ['move'], moveSteps);
