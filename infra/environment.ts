import type { Tool } from '../functions/lib/mcp/tool.ts';
import { connectionFacts } from './budget.ts';
import type { FunctionName, FunctionRow } from './functions.ts';
import type { Settings } from './settings.ts';

/** Of the shared cluster in the catalog. A deployment has one to begin with; others are rows, not deployments. */
export const catalogClusterId = '7e4a0d0c-0000-4000-8000-000000000001';

/** What stacks learn on the way; a function of an earlier stack does without what comes later. */
export interface DeploymentFacts {
  readonly settings: Settings;
  readonly tools: readonly Pick<Tool, 'name' | 'scopes'>[];
  readonly proxyHost: string;
  readonly clusterHost: string;
  readonly port: string;
  /** The secrets' names. */
  readonly contextKey: string;
  readonly signingKey: string;
  readonly canaryKeys: string;
  readonly masterSecret: string;
  readonly parameterGroup: string;
  readonly subnetGroup: string;
  readonly dedicatedSecurityGroup: string;
  readonly ownKey?: string;
  readonly publicUrl?: string;
  readonly apiKeyJwks?: string;
  readonly mcpFunction?: string;
  readonly endpointCanary?: string;
  /** Of the bucket that keeps exports. */
  readonly exportBucket?: string;
  /** ARNs by the machines' files. */
  readonly machines?: Readonly<Record<string, string>>;
  /** As JSON: it may hold values that CloudFormation fills in. */
  readonly json: (value: unknown) => string;
}

/** Which authority signs a dedicated instance's certificate; good until 2061. */
const certificateAuthority = 'rds-ca-rsa2048-g1';

export const scopesOf = (tools: DeploymentFacts['tools']) =>
  [...new Set(tools.flatMap(({ scopes }) => scopes))].sort();

/** Tools by the scopes that they need, separated by spaces: most share theirs, and Lambda has little room. */
export function toolsByScopes(tools: DeploymentFacts['tools']): Record<string, string[]> {
  const groups = new Map<string, string[]>();
  for (const { name, scopes } of tools) {
    const key = scopes.join(' ');
    if (key !== '') groups.set(key, [...(groups.get(key) ?? []), name]);
  }
  return Object.fromEntries(groups);
}

/** A function's environment variables: what `functions/lib/settings.ts` parses, as `infra/local/functions.ts` has it for one machine. */
export function environmentOf(row: FunctionRow, facts: DeploymentFacts): Record<string, string> {
  const { settings, tools } = facts;
  const database = (host: string) => ({
    CATALOG_HOST: host,
    CATALOG_PORT: facts.port,
    CREDENTIALS: 'iam',
    CONTEXT_KEY_SECRET: facts.contextKey,
    DATABASE_TLS: 'verify',
  });
  const control = () => ({
    ...database(facts.clusterHost),
    CATALOG_CLUSTER_ID: catalogClusterId,
    EXTENSIONS: settings.extensions.join(','),
    PUBLIC_URL: facts.publicUrl!,
    MCP_FUNCTION: facts.mcpFunction!,
    INSTANCE: facts.json({
      instanceClass: settings.dedicated.instanceClass,
      engineVersion: settings.dedicated.engineVersion,
      storageGb: settings.dedicated.storageGb,
      backupDays: settings.dedicated.backupDays,
      parameterGroup: facts.parameterGroup,
      subnetGroup: facts.subnetGroup,
      securityGroups: [facts.dedicatedSecurityGroup],
      certificateAuthority,
      kmsKeyId: facts.ownKey,
    }),
  });
  const machines = () =>
    Object.fromEntries(
      Object.entries(facts.machines!).map(([name, machine]) => [machineVariable(name), machine]),
    );
  const own: Partial<Record<FunctionName, () => Record<string, string>>> = {
    mcp: () => ({
      ...database(facts.proxyHost),
      PUBLIC_URL: facts.publicUrl!,
      ALLOWED_ORIGINS: settings.allowedOrigins.join(','),
      MAX_CONNECTIONS: String(settings.concurrency.connections),
      DATABASE_ROUND_TRIPS: settings.roundTrips,
    }),
    authorizer: () => ({
      PUBLIC_URL: facts.publicUrl!,
      ISSUERS: facts.json(settings.issuers.map((issuer) => ({ audience: facts.publicUrl, ...issuer }))),
      API_KEY_JWKS: facts.apiKeyJwks!,
      API_KEY_ISSUER: facts.publicUrl!,
      // Not read: the line above names where the keys stand, so that without this a deployment would not bring new ones.
      SIGNING_KEY_GENERATION: String(settings.signingKeyGeneration),
      TOOLS_BY_SCOPES: JSON.stringify(toolsByScopes(tools)),
    }),
    health: () => ({
      CATALOG_HOST: facts.proxyHost,
      CATALOG_PORT: facts.port,
      CREDENTIALS: 'iam',
      DATABASE_TLS: 'verify',
    }),
    install: () => ({
      ...database(facts.clusterHost),
      CATALOG_CLUSTER_ID: catalogClusterId,
      EXTENSIONS: settings.extensions.join(','),
      PROXY_HOST: facts.proxyHost,
      MASTER_SECRET: facts.masterSecret,
      SIGNING_KEY_SECRET: facts.signingKey,
      SIGNING_KEY_GENERATION: String(settings.signingKeyGeneration),
    }),
    'batch-moves': () => ({ ...control(), MOVE_MACHINE: facts.machines!['move-tenant']! }),
    'health-canary': () => ({
      ...control(),
      API_KEY_ISSUER: facts.publicUrl!,
      SIGNING_KEY_SECRET: facts.signingKey,
      CANARY_KEYS_SECRET: facts.canaryKeys,
      ENDPOINT_CANARY_FUNCTION: facts.endpointCanary!,
      CONNECTION_FACTS: JSON.stringify(connectionFacts(settings)),
      PROVISION_MACHINE: facts.machines!['provision-tenant']!,
    }),
    'endpoint-canary': () => ({ PUBLIC_URL: facts.publicUrl!, CANARY_KEYS_SECRET: facts.canaryKeys }),
    admin: () => ({
      ...control(),
      TIERS: JSON.stringify(settings.tiers),
      CONNECTION_FACTS: JSON.stringify(connectionFacts(settings)),
      API_KEY_ISSUER: facts.publicUrl!,
      SIGNING_KEY_SECRET: facts.signingKey,
      SCOPES: scopesOf(tools).join(','),
      ISSUERS: settings.issuers.map(({ issuer }) => issuer).join(','),
      EXPORT_URL: `s3://${facts.exportBucket}/offboarded`,
      ...machines(),
    }),
  };
  return (own[row.name as FunctionName] ?? control)();
}

/** `provision-tenant` → `PROVISION_MACHINE`. */
export const machineVariable = (name: string) => `${name.split('-')[0]!.toUpperCase()}_MACHINE`;
