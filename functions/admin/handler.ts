import { Logger } from '@aws-lambda-powertools/logger';
import type { APIGatewayProxyEvent, APIGatewayProxyResult } from 'aws-lambda';
import { answerAdmin } from '../lib/admin/api.ts';
import { createWorkflows } from '../lib/aws/step-functions.ts';
import { createControlPlane } from '../lib/lifecycle/control-plane.ts';
import { readRelease } from '../lib/migrations/migrator.ts';
import { readAdminSettings } from '../lib/settings.ts';

const settings = readAdminSettings();
const logger = new Logger({ serviceName: 'admin' });
const workflows = createWorkflows();

let known: ReturnType<typeof readRelease> | undefined;
let plane: ReturnType<typeof createControlPlane> | undefined;
async function admin() {
  plane ??= createControlPlane(settings);
  // A failure is not remembered: the secret may be there at the next call.
  plane.catch(() => {
    plane = undefined;
  });
  const loaded = await plane;
  const release = () => {
    known ??= readRelease(loaded);
    return known;
  };
  return { plane: loaded, workflows, release, settings };
}

/** The admin API. Its gateway has checked who asks. */
export const handler = (event: APIGatewayProxyEvent): Promise<APIGatewayProxyResult> =>
  answerAdmin(admin, event, (error) => logger.error('failed', error as Error));
