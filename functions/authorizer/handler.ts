import { Logger } from '@aws-lambda-powertools/logger';
import { createAuthorizer } from '../lib/auth/authorize.ts';
import { createTokenVerifier } from '../lib/auth/verify-token.ts';
import { readAuthorizerSettings } from '../lib/settings.ts';

const settings = readAuthorizerSettings();
const logger = new Logger({ serviceName: 'authorizer' });

/** Runs outside the VPC and reaches no database: what isn't authenticated never gets further than here. */
export const handler = createAuthorizer({
  verify: createTokenVerifier({ ...settings, audience: settings.publicUrl }),
  resource: settings.publicUrl,
  toolScopes: settings.toolScopes,
  onRefusal: (outcome, error) => {
    const reason = error instanceof Error && error.cause instanceof Error ? error.cause.message : undefined;
    logger.info('refused', { outcome, reason });
  },
});
