import { Logger } from '@aws-lambda-powertools/logger';
import type { CloudFormationCustomResourceEvent } from 'aws-lambda';
import { install } from '../lib/lifecycle/install.ts';
import { homeMigrations } from '../lib/migrations/release.ts';
import { readInstallSettings } from '../lib/settings.ts';

const settings = readInstallSettings();
const logger = new Logger({ serviceName: 'install' });

/** What CloudFormation calls the resource once an installation has succeeded, and not before. */
const installed = 'tenantry';

/** A custom resource of the stack that holds the databases: what needs it waits for it. */
export async function handler(event: CloudFormationCustomResourceEvent) {
  // What is installed goes with the databases, never with a stack.
  if (event.RequestType === 'Delete') return {};
  try {
    const isFirst = !('PhysicalResourceId' in event && event.PhysicalResourceId === installed);
    const { apiKeyJwks } = await install(settings, await homeMigrations(), isFirst);
    return { PhysicalResourceId: installed, Data: { ApiKeyJwks: JSON.stringify(apiKeyJwks) } };
  } catch (error) {
    logger.error('failed', error as Error);
    // CloudFormation shows this one sentence to whoever deploys.
    throw new Error(`The installation failed: ${reasons(error).join(': ')}`, { cause: error });
  }
}

function reasons(error: unknown): string[] {
  if (!(error instanceof Error)) return [String(error)];
  return [error.message, ...(error.cause === undefined ? [] : reasons(error.cause))];
}
