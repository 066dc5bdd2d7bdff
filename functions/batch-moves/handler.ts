import { createSecrets } from '../lib/aws/secrets.ts';
import { createWorkflows } from '../lib/aws/step-functions.ts';
import { KeptConnections } from '../lib/database/kept.ts';
import { createCredentials } from '../lib/isolation/credentials.ts';
import { type Batcher, batchSteps } from '../lib/lifecycle/move-batch.ts';
import { runStep, type StepEvent } from '../lib/lifecycle/step.ts';
import { readBatchSettings } from '../lib/settings.ts';

const { catalog, credentials, region, tls, moveMachine } = readBatchSettings();
const workflows = createWorkflows();
const batcher: Batcher = {
  plane: {
    catalog,
    credentials: createCredentials(credentials, region, createSecrets()),
    tls,
    kept: new KeptConnections(),
  },
  async startMove(operationId, input) {
    await workflows.start(moveMachine, operationId, input);
  },
  clock: Date.now,
};

/** The steps of `stepfunctions/batch-moves.asl.json`. */
export const handler = (event: StepEvent): Promise<unknown> => runStep(batcher, event, ['batch'], batchSteps);
