import { Logger } from '@aws-lambda-powertools/logger';
import type { APIGatewayProxyEvent, APIGatewayProxyResult } from 'aws-lambda';
import { answerAdmin } from '../lib/admin/api.ts';
import { createWorkflows } from '../lib/aws/step-functions.ts';
import { createControlPlane } from '../lib/lifecycle/control-plane.ts';
import { readRelease } from '../lib/migrations/release.ts';
import { renewed } from '../lib/renewed.ts';
import { readAdminSettings } from '../lib/settings.ts';

const settings = readAdminSettings();
const logger = new Logger({ serviceName: 'admin' });
const workflows = createWorkflows();

const admin = renewed(async () => {
  const plane = await createControlPlane(settings);
  let known: ReturnType<typeof readRelease> | undefined;
  const release = () => {
    known ??= readRelease(plane);
    return known;
  };
  return { plane, workflows, release, settings };
});

/** The admin API. Its gateway has checked who asks. */
export const handler = (event: APIGatewayProxyEvent): Promise<APIGatewayProxyResult> =>
  answerAdmin(admin, event, (error) => logger.error('failed', error as Error));
