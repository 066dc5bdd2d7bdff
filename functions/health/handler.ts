import { Logger } from '@aws-lambda-powertools/logger';
import { createSecrets } from '../lib/aws/secrets.ts';
import { askCatalog, createHealthAnswer } from '../lib/health/answer.ts';
import { createCredentials } from '../lib/isolation/credentials.ts';
import { readHealthSettings } from '../lib/settings.ts';

const { catalog, credentials, region, tls } = readHealthSettings();
const logger = new Logger({ serviceName: 'health' });
const reader = { ...catalog, clusterId: 'catalog', login: 'tenancy_catalog_reader' };
const { password } = createCredentials(credentials, region, createSecrets());

/** `GET /health`, for everybody: a function of its own, so that no flood of questions takes the data path's environments. */
export const handler = createHealthAnswer(
  askCatalog({ ...reader, tls, password: (fresh) => password(reader, fresh) }),
  (error) => logger.error('the catalog could not be asked', error as Error),
);
