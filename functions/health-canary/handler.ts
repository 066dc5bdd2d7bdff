import { Logger } from '@aws-lambda-powertools/logger';
import { mintApiKey } from '../lib/auth/api-key.ts';
import { invokeFunction } from '../lib/aws/lambda.ts';
import { listInstances } from '../lib/aws/rds.ts';
import { createSecrets } from '../lib/aws/secrets.ts';
import { createWorkflows } from '../lib/aws/step-functions.ts';
import { metricNames } from '../lib/health/metrics.ts';
import { publicAnswer } from '../lib/health/public-url.ts';
import { publish } from '../lib/health/publish.ts';
import { runCanary } from '../lib/health/run.ts';
import { publishRun, type Summary, summaryOf } from '../lib/health/tell.ts';
import type { Watch } from '../lib/health/watch.ts';
import { parseMasterKeys } from '../lib/isolation/context.ts';
import { createCredentials } from '../lib/isolation/credentials.ts';
import { probeTenant } from '../lib/lifecycle/probe.ts';
import { readCanarySettings } from '../lib/settings.ts';

const settings = readCanarySettings();
const logger = new Logger({ serviceName: 'health-canary' });
const secrets = createSecrets();
const workflows = createWorkflows();
const { catalog, credentials, contextKeySecret, signingKeySecret, tls, region, provisionMachine } = settings;
const watch: Watch = {
  plane: {
    catalog,
    secrets,
    credentials: createCredentials(credentials, region, secrets),
    loginsUse: credentials,
    extensions: settings.extensions,
    tls,
  },
  secrets,
  keySecrets: { contextKeySecret, signingKeySecret },
  readKeys: async () => parseMasterKeys(await secrets.read(contextKeySecret, true)),
  readSigningKeys: () => secrets.find(signingKeySecret),
  instances: listInstances,
  connectionFacts: settings.connectionFacts,
  publicKeys: {
    url: settings.publicUrl,
    read: () => secrets.find(settings.canaryKeysSecret),
    write: (text) => secrets.write(settings.canaryKeysSecret, text),
    async mint(claims) {
      const signing = JSON.parse(await secrets.read(signingKeySecret, true));
      const { apiKeyIssuer: issuer, publicUrl: audience } = settings;
      return mintApiKey(signing.private, { ...claims, issuer, audience });
    },
  },
  askPublicUrl: async () => publicAnswer.parse(await invokeFunction(settings.endpointCanaryFunction, {})),
  probe: (tenant) => probeTenant(settings.mcpFunction, tenant),
  async provision(operation) {
    await workflows.start(provisionMachine, operation, { operation, input: { placement: 'shared' } });
  },
};

/** One run, every minute: what it finds is in the catalog, in the metrics, and in one line of the log. */
export async function handler(): Promise<Summary> {
  try {
    const run = await runCanary(watch);
    if (run === undefined) return { state: 'skipped', problems: [] };
    publishRun(run);
    const { findings, ...report } = run.report;
    const [level, message] =
      run.state === 'ok' ? (['info', 'healthy'] as const) : (['error', 'not healthy'] as const);
    logger[level](message, { state: run.state, ...report, findings: findings.slice(0, 20) });
    return summaryOf(run);
  } catch (error) {
    publish({ [metricNames.canaryFailures]: 1 });
    logger.error('the run could not be finished', error as Error);
    throw error;
  }
}
