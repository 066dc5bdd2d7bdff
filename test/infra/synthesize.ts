import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { App } from 'aws-cdk-lib';
import { Template } from 'aws-cdk-lib/assertions';
import type { DeploymentFacts } from '../../infra/environment.ts';
import { readSettings, type Settings } from '../../infra/settings.ts';
import { addSystem } from '../../infra/system.ts';

const { context } = JSON.parse(readFileSync('cdk.json', 'utf8')) as { context: Record<string, unknown> };

export const tools = [
  { name: 'look', scopes: ['things:read'] },
  { name: 'change', scopes: ['things:read', 'things:write'] },
];

/** Deployments that differ: every rule holds in all of them. */
export const variants: Readonly<Record<string, Record<string, unknown>>> = {
  'the defaults': {},
  'another region, with a domain and issuers': {
    region: 'ap-southeast-2',
    domain: {
      name: 'mcp.example.com',
      certificateArn: 'arn:aws:acm:ap-southeast-2:111122223333:certificate/abc',
    },
    issuers: [{ issuer: 'https://login.example.com/', jwksUri: 'https://login.example.com/keys' }],
    alarmEmail: 'ops@example.com',
    concurrency: { reserved: 100, provisioned: 2, reservedFor: { authorizer: 50, health: 5, admin: 10 } },
    logRetentionDays: 90,
    ownKey: true,
    extensions: ['pg_trgm'],
    signingKeyGeneration: 2,
    allowedOrigins: ['https://app.example.com'],
  },
  'an existing network without endpoints, an RDS instance under a key of its own': {
    network: {
      existing: {
        vpcId: 'vpc-0123456789abcdef0',
        subnetIds: ['subnet-0123456789abcdef0', 'subnet-0123456789abcdef1'],
        routeTableIds: ['rtb-0123456789abcdef0'],
      },
    },
    cluster: { kind: 'instance' },
    ownKey: true,
  },
  'an existing network with some endpoints': {
    network: {
      existing: {
        vpcId: 'vpc-0123456789abcdef0',
        subnetIds: ['subnet-0123456789abcdef0', 'subnet-0123456789abcdef1'],
        endpointSecurityGroupId: 'sg-0123456789abcdef0',
        endpointsThere: ['s3', 'secretsmanager'],
      },
    },
  },
  'an existing network with endpoints, one small server': {
    network: {
      existing: {
        vpcId: 'vpc-0123456789abcdef0',
        subnetIds: ['subnet-0123456789abcdef0', 'subnet-0123456789abcdef1'],
        endpointSecurityGroupId: 'sg-0123456789abcdef0',
      },
    },
    cluster: { kind: 'aurora', standby: false, maxCapacity: 1, maxConnections: 700 },
    roundTrips: 'four',
  },
};

export interface Synthesized {
  readonly app: App;
  readonly settings: Settings;
  readonly stacks: ReturnType<typeof addSystem>;
  /** Synthesizes at first use; nothing can be added afterwards. */
  template(stack: keyof ReturnType<typeof addSystem>): Template;
}

/** As `npm run synth` does it, with the feature flags of cdk.json, but in this process. */
export function synthesize(
  changes: Record<string, unknown> = {},
  itsTools: DeploymentFacts['tools'] = tools,
): Synthesized {
  // Validation by the library's own rules takes seconds: `validation.test.ts` asks for it.
  process.env.CDK_VALIDATION = 'false';
  const folder = process.env.TENANTRY_RUN;
  const app = new App({
    context,
    ...(folder !== undefined && { outdir: mkdtempSync(join(folder, 'cdk.out-')) }),
  });
  if (folder === undefined) process.once('exit', () => rmSync(app.outdir, { recursive: true, force: true }));
  const settings = readSettings(changes);
  const stacks = addSystem(app, settings, itsTools);
  return { app, settings, stacks, template: (stack) => Template.fromStack(stacks[stack]) };
}
