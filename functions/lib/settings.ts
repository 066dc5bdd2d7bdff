import { z } from 'zod';
import { TenantryError } from './errors.ts';
import type { ConnectionFacts } from './health/budget.ts';
import { extensionName } from './migrations/extensions.ts';
import { strategies } from './tenant/tenant.ts';

/** A process environment as received: nothing in it is trusted before it is parsed. */
export type Environment = Readonly<Record<string, string | undefined>>;

const port = z.coerce.number().int().min(1).max(65535);
const list = z
  .string()
  .default('')
  .transform((text) =>
    text
      .split(',')
      .map((part) => part.trim())
      .filter((part) => part !== ''),
  );

/** A variable that holds JSON; a fault in the JSON is reported like any other. */
const json = <T extends z.ZodType>(schema: T) =>
  z
    .string()
    .transform((text, context) => {
      try {
        return JSON.parse(text) as unknown;
      } catch {
        context.addIssue({ code: 'custom', message: 'must be JSON' });
        return z.NEVER;
      }
    })
    .pipe(schema);

/** What every function that reaches the databases needs to know. */
const database = {
  CATALOG_HOST: z.string().min(1),
  CATALOG_PORT: port.default(5432),
  /** How a login of a shared cluster authenticates: an IAM token, or a secret `tenancy-login/<cluster id>/<login>`. */
  CREDENTIALS: z.enum(['iam', 'secret']).default('iam'),
  /** Name of the secret that holds the context-signing master keys. */
  CONTEXT_KEY_SECRET: z.string().min(1).default('tenancy/context-key'),
  DATABASE_TLS: z.enum(['verify', 'off']).default('verify'),
  AWS_REGION: z.string().min(1),
};

/** Extensions that tenant migrations build on, comma-separated: in every database that holds tenants, in a schema of their own. */
const EXTENSIONS = list.pipe(z.array(z.string().regex(extensionName, 'must be the name of an extension')));

/** Name of the secret with the pair that signs API keys. */
const SIGNING_KEY_SECRET = z.string().min(1).default('tenancy/api-key-signing');

const mcpSettings = z
  .object({
    /** The resource identifier: what tokens are issued for, e.g. https://mcp.example.com/mcp */
    PUBLIC_URL: z.url(),
    /** Origins that may call from a browser, comma-separated; none by default. */
    ALLOWED_ORIGINS: list,
    ...database,
    /** `four` where a proxy can't keep the statements of one Sync on one server connection. */
    DATABASE_ROUND_TRIPS: z.enum(['one', 'four']).default('one'),
    /** Connections of this environment over all pools; part of the connection budget. */
    MAX_CONNECTIONS: z.coerce.number().int().min(1).max(100).default(4),
    /** Lambda's own: why it starts this environment. */
    AWS_LAMBDA_INITIALIZATION_TYPE: z.string().optional(),
  })
  .transform((env) => ({
    isMadeAhead: env.AWS_LAMBDA_INITIALIZATION_TYPE === 'provisioned-concurrency',
    publicUrl: env.PUBLIC_URL,
    allowedOrigins: env.ALLOWED_ORIGINS,
    catalog: { host: env.CATALOG_HOST, port: env.CATALOG_PORT },
    credentials: env.CREDENTIALS,
    contextKeySecret: env.CONTEXT_KEY_SECRET,
    tls: env.DATABASE_TLS,
    roundTrips: env.DATABASE_ROUND_TRIPS,
    maxConnections: env.MAX_CONNECTIONS,
    region: env.AWS_REGION,
  }));

const machineArn = z.string().startsWith('arn:');

const jwks = z.object({ keys: z.array(z.looseObject({ kty: z.string(), kid: z.string() })) });

const authorizerSettings = z
  .object({
    PUBLIC_URL: z.url(),
    /** OIDC issuers whose tokens are accepted; none is fine, the product's own API keys then serve. */
    ISSUERS: json(
      z.array(
        z.strictObject({
          issuer: z.url(),
          audience: z.string().min(1),
          jwksUri: z.url(),
          tenantClaim: z.string().min(1).default('tenant'),
          scopeClaim: z.string().min(1).default('scope'),
        }),
      ),
    ).default([]),
    /** Public keys of the product's own API keys; none is fine, the issuers' tokens then serve. */
    API_KEY_JWKS: json(jwks),
    API_KEY_ISSUER: z.string().min(1),
    /** Tools by the scopes that they need, separated by spaces: for the 403 that a missing one gets before any function of ours runs. */
    TOOLS_BY_SCOPES: json(z.record(z.string().min(1), z.array(z.string()))).default({}),
  })
  .transform((env) => ({
    publicUrl: env.PUBLIC_URL,
    issuers: env.ISSUERS,
    apiKeyJwks: env.API_KEY_JWKS,
    apiKeyIssuer: env.API_KEY_ISSUER,
    toolScopes: Object.fromEntries(
      Object.entries(env.TOOLS_BY_SCOPES).flatMap(([scopes, names]) =>
        names.map((name) => [name, scopes.split(' ')]),
      ),
    ),
  }));

/** What every function that operates tenants needs to know. */
const controlPlane = {
  ...database,
  EXTENSIONS,
  /** The cluster that also holds the catalog. */
  CATALOG_CLUSTER_ID: z.uuid(),
};

const planeOf = (env: z.output<z.ZodObject<typeof controlPlane>>) => ({
  catalog: { clusterId: env.CATALOG_CLUSTER_ID, host: env.CATALOG_HOST, port: env.CATALOG_PORT },
  extensions: env.EXTENSIONS,
  credentials: env.CREDENTIALS,
  contextKeySecret: env.CONTEXT_KEY_SECRET,
  tls: env.DATABASE_TLS,
  region: env.AWS_REGION,
});

const offboardSettings = z.object(controlPlane).transform(planeOf);

const controlSettings = z
  .object({
    ...controlPlane,
    /** Name of the function that a new tenant's data path is tried in. */
    MCP_FUNCTION: z.string().min(1),
    /** What a dedicated instance is made of. */
    INSTANCE: json(
      z.strictObject({
        instanceClass: z.string().startsWith('db.'),
        engineVersion: z.string().regex(/^\d+\.\d+$/, 'must be exact, e.g. 17.10'),
        storageGb: z.number().int().min(20),
        parameterGroup: z.string().min(1),
        subnetGroup: z.string().min(1),
        securityGroups: z.array(z.string().min(1)).min(1),
        kmsKeyId: z.string().optional(),
        certificateAuthority: z.string().min(1),
        backupDays: z.number().int().min(1).max(35),
      }),
    ),
  })
  .transform((env) => ({
    ...planeOf(env),
    mcpFunction: env.MCP_FUNCTION,
    instance: env.INSTANCE,
  }));

const migrateSettings = z
  .object({
    ...controlPlane,
    /** Name of the function that a ring's tenants, or a tenant's next home, are tried in. */
    MCP_FUNCTION: z.string().min(1),
  })
  .transform((env) => ({ ...planeOf(env), mcpFunction: env.MCP_FUNCTION }));

const some = z.int().min(1);
const connectionFacts: z.ZodType<ConnectionFacts> = z.strictObject({
  environments: some,
  connectionsPerEnvironment: some,
  shared: z.strictObject({
    maxConnections: some,
    proxyPercent: some,
    activeSchemaTenants: some,
    control: z.record(z.string(), some),
  }),
  dedicated: z.strictObject({ maxConnections: some }),
});

/** What the deployment's connection budget is computed from; absent where there is no proxy to share. */
const CONNECTION_FACTS = json(connectionFacts).optional();

const batchSettings = z
  .object({
    ...controlPlane,
    /** ARN of the state machine that moves one tenant. */
    MOVE_MACHINE: machineArn,
  })
  .transform((env) => ({ ...planeOf(env), moveMachine: env.MOVE_MACHINE }));

const adminSettings = z
  .object({
    ...controlPlane,
    /** ARN of the state machine that provisions what takes longer than an answer may. */
    PROVISION_MACHINE: machineArn,
    /** ARN of the state machine that migrates all homes. */
    MIGRATE_MACHINE: machineArn,
    /** ARN of the state machine that moves one tenant. */
    MOVE_MACHINE: machineArn,
    /** ARN of the state machine that moves the tenants of a tier. */
    BATCH_MACHINE: machineArn,
    /** ARN of the state machine that offboards. */
    OFFBOARD_MACHINE: machineArn,
    /** What part of a state machine's waits they last: one machine's clock may run faster. */
    WAIT_FACTOR: z.coerce.number().gt(0).max(1).default(1),
    /** ARNs of the state machines that write a tenant's rows to files and take them from there. */
    EXPORT_MACHINE: machineArn,
    IMPORT_MACHINE: machineArn,
    /** The folder in which an offboarded tenant's rows are kept, e.g. s3://bucket/offboarded */
    EXPORT_URL: z.url({ protocol: /^(s3|file)$/ }),
    /** Where exports may go and imports come from; the function's own disk only where it is one to keep. */
    TRANSFER_SCHEMES: list.pipe(z.array(z.enum(['s3', 'file']))).default(['s3']),
    /** The strategy that each tier gets unless another one is asked for. */
    TIERS: json(
      z.strictObject({
        starter: z.enum(strategies),
        pro: z.enum(strategies),
        enterprise: z.enum(strategies),
      }),
    ),
    CONNECTION_FACTS,
    /** The endpoint's public URL: what API keys are for, and who issues them. */
    PUBLIC_URL: z.url(),
    API_KEY_ISSUER: z.string().min(1),
    SIGNING_KEY_SECRET,
    /** Every scope that a tool asks for, comma-separated: a key can have no other. */
    SCOPES: list,
    /** OIDC issuers whose tokens are accepted, comma-separated. */
    ISSUERS: list,
  })
  .transform((env) => ({
    ...planeOf(env),
    provisionMachine: env.PROVISION_MACHINE,
    migrateMachine: env.MIGRATE_MACHINE,
    moveMachine: env.MOVE_MACHINE,
    batchMachine: env.BATCH_MACHINE,
    offboardMachine: env.OFFBOARD_MACHINE,
    waitFactor: env.WAIT_FACTOR,
    exportMachine: env.EXPORT_MACHINE,
    importMachine: env.IMPORT_MACHINE,
    exportUrl: env.EXPORT_URL,
    transferSchemes: env.TRANSFER_SCHEMES,
    tiers: env.TIERS,
    publicUrl: env.PUBLIC_URL,
    apiKeyIssuer: env.API_KEY_ISSUER,
    signingKeySecret: env.SIGNING_KEY_SECRET,
    scopes: env.SCOPES,
    issuers: env.ISSUERS,
    connectionFacts: env.CONNECTION_FACTS,
  }));

const endpointCanary = {
  /** The endpoint's public URL. */
  PUBLIC_URL: z.url(),
  /** Name of the secret with the canaries' own API keys. */
  CANARY_KEYS_SECRET: z.string().min(1).default('tenancy/canary-keys'),
};

const canarySettings = z
  .object({
    ...controlPlane,
    /** Name of the function through which the canaries' tool calls go. */
    MCP_FUNCTION: z.string().min(1),
    /** ARN of the state machine that makes a canary where there is none. */
    PROVISION_MACHINE: machineArn,
    SIGNING_KEY_SECRET,
    ...endpointCanary,
    API_KEY_ISSUER: z.string().min(1),
    /** Name of the function that calls the public URL. */
    ENDPOINT_CANARY_FUNCTION: z.string().min(1),
    CONNECTION_FACTS,
  })
  .transform((env) => ({
    ...planeOf(env),
    mcpFunction: env.MCP_FUNCTION,
    provisionMachine: env.PROVISION_MACHINE,
    signingKeySecret: env.SIGNING_KEY_SECRET,
    publicUrl: env.PUBLIC_URL,
    apiKeyIssuer: env.API_KEY_ISSUER,
    canaryKeysSecret: env.CANARY_KEYS_SECRET,
    endpointCanaryFunction: env.ENDPOINT_CANARY_FUNCTION,
    connectionFacts: env.CONNECTION_FACTS,
  }));

const endpointCanarySettings = z.object(endpointCanary).transform((env) => ({
  publicUrl: env.PUBLIC_URL,
  canaryKeysSecret: env.CANARY_KEYS_SECRET,
}));

const healthSettings = z
  .object({
    CATALOG_HOST: database.CATALOG_HOST,
    CATALOG_PORT: database.CATALOG_PORT,
    CREDENTIALS: database.CREDENTIALS,
    DATABASE_TLS: database.DATABASE_TLS,
    AWS_REGION: database.AWS_REGION,
  })
  .transform((env) => ({
    catalog: { host: env.CATALOG_HOST, port: env.CATALOG_PORT },
    credentials: env.CREDENTIALS,
    tls: env.DATABASE_TLS,
    region: env.AWS_REGION,
  }));

const installSettings = z
  .object({
    ...controlPlane,
    /** What calls connect to: the proxy. CATALOG_HOST is the server itself here. */
    PROXY_HOST: z.string().min(1),
    PROXY_PORT: port.default(5432),
    /** ARN of the secret in which RDS keeps the master's password. */
    MASTER_SECRET: z.string().min(1),
    SIGNING_KEY_SECRET,
    /** A higher one than the secret's has the pair that signs API keys replaced. */
    SIGNING_KEY_GENERATION: z.coerce.number().int().min(1).default(1),
  })
  .transform((env) => ({
    ...planeOf(env),
    proxy: { host: env.PROXY_HOST, port: env.PROXY_PORT },
    signingKeySecret: env.SIGNING_KEY_SECRET,
    signingKeyGeneration: env.SIGNING_KEY_GENERATION,
    masterSecret: env.MASTER_SECRET,
  }));

const cliSettings = z
  .object({
    /** A deployed admin API, e.g. https://abc.execute-api.eu-west-1.amazonaws.com/prod; without it, the local cloud. */
    TENANTRY_ADMIN_URL: z.url({ protocol: /^https?$/ }).optional(),
    /** The local cloud's folder and port, as `npm start` takes them. */
    TENANTRY_STATE: z.string().min(1).optional(),
    PORT: port.optional(),
  })
  .transform((env) => ({ adminUrl: env.TENANTRY_ADMIN_URL, folder: env.TENANTRY_STATE, port: env.PORT }));

export type AdminSettings = z.output<typeof adminSettings>;
export type InstallSettings = z.output<typeof installSettings>;
export type CliSettings = z.output<typeof cliSettings>;
export type McpSettings = z.output<typeof mcpSettings>;
export type ControlSettings = z.output<typeof controlSettings>;

export const readMcpSettings = reader(mcpSettings);
export const readAuthorizerSettings = reader(authorizerSettings);
export const readControlSettings = reader(controlSettings);
export const readMigrateSettings = reader(migrateSettings);
export const readBatchSettings = reader(batchSettings);
export const readOffboardSettings = reader(offboardSettings);
export const readAdminSettings = reader(adminSettings);
export const readCanarySettings = reader(canarySettings);
export const readEndpointCanarySettings = reader(endpointCanarySettings);
export const readHealthSettings = reader(healthSettings);
export const readInstallSettings = reader(installSettings);
/** Of the command line. */
export const readCliSettings = reader(cliSettings);

/** @returns a function that throws TenantryError `invalid_settings`, which names every faulty variable */
function reader<T extends z.ZodType>(schema: T) {
  return (env: Environment = process.env): z.output<T> => {
    const result = schema.safeParse(env);
    if (result.success) return result.data;
    const faults = result.error.issues.map((issue) => `  ${issue.path.join('.')}: ${issue.message}`);
    throw new TenantryError(
      'invalid_settings',
      `These environment variables need attention:\n${faults.join('\n')}`,
    );
  };
}
