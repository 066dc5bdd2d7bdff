import type { CloudFormationCustomResourceEvent } from 'aws-lambda';
import { install } from '../lib/lifecycle/install.ts';
import { homeMigrations } from '../lib/migrations/migrator.ts';
import { readInstallSettings } from '../lib/settings.ts';

const settings = readInstallSettings();

/** A custom resource of the stack that holds the databases: what needs it waits for it. */
export async function handler(event: CloudFormationCustomResourceEvent) {
  // What is installed goes with the databases, never with a stack.
  if (event.RequestType === 'Delete') return {};
  const { apiKeyJwks } = await install(settings, await homeMigrations());
  return { PhysicalResourceId: 'tenantry', Data: { ApiKeyJwks: JSON.stringify(apiKeyJwks) } };
}
