import { Logger } from '@aws-lambda-powertools/logger';
import { createSecrets } from '../lib/aws/secrets.ts';
import { askCatalog, createHealthAnswer } from '../lib/health/answer.ts';
import { readingCatalog } from '../lib/isolation/catalog-reader.ts';
import { createCredentials } from '../lib/isolation/credentials.ts';
import { readHealthSettings } from '../lib/settings.ts';

const settings = readHealthSettings();
const logger = new Logger({ serviceName: 'health' });
const credentials = createCredentials(settings.credentials, settings.region, createSecrets());

/** `GET /health`, for everybody: a function of its own, so that no flood of questions takes the data path's environments. */
export const handler = createHealthAnswer(askCatalog(readingCatalog(settings, credentials)), (error) =>
  logger.error('the catalog could not be asked', error as Error),
);
