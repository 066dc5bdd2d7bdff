import { z } from 'zod';
import { extensionName, neverInstalled } from '../functions/lib/migrations/extensions.ts';
import { strategies } from '../functions/lib/tenant/tenant.ts';
import { endpointsAreComplete, endpointsThere } from './existing-endpoints.ts';
import { serviceNames } from './rights.ts';

/**
 * What an adopting team decides about its deployment: the object `tenantry` of CDK's context. It stands in `cdk.json`,
 * or is given as JSON text for one environment: `cdk deploy -c tenantry="$(cat staging.json)"`. Everything has a
 * default: `{}` is a deployment.
 */
const schema = z.strictObject({
  /** Where to deploy; absent: where the CDK command line points. */
  region: z
    .string()
    .regex(/^[a-z]{2}(-[a-z]+)+-\d$/, 'must be an AWS region, e.g. eu-west-1')
    .optional(),
  /**
   * The endpoint's own name. Absent: API Gateway's address, whose stage stands in the path. Another one later makes every API
   * key invalid: the address is their issuer and audience.
   */
  domain: z
    .strictObject({
      name: z.hostname('must be a host name, e.g. mcp.example.com'),
      /** In the same region. */
      certificateArn: z.string().regex(/^arn:[\w-]+:acm:/, 'must be the ARN of an ACM certificate'),
    })
    .optional(),
  /**
   * OIDC issuers whose tokens are accepted. None is fine: the product's own API keys then serve. Each may name any tenant
   * that was made without `--issuer`: with one that is not your own, make every tenant with it.
   */
  issuers: z
    .array(
      z.strictObject({
        issuer: publicAddress(),
        jwksUri: publicAddress(),
        /** What the issuer writes as `aud`; absent: the endpoint's own address, as RFC 8707 wants it. */
        audience: z.string().min(1).optional(),
        /** Claim that names the tenant. */
        tenantClaim: z.string().min(1).optional(),
        scopeClaim: z.string().min(1).optional(),
      }),
    )
    .default([]),
  /**
   * Which pair signs the product's own API keys. Raised by one, a new pair signs, and keys of the one before stay good; raised
   * by two, they do not. Never lowered.
   */
  signingKeyGeneration: z.int().min(1).default(1),
  /** PostgreSQL extensions that tenant migrations build on, e.g. pg_trgm: in a schema of their own, which is in every path. */
  extensions: z
    .array(
      z
        .string()
        .regex(extensionName, 'must be the name of an extension, e.g. pg_trgm')
        .refine((name) => !neverInstalled.includes(name), 'leads past the walls between tenants'),
    )
    .default([]),
  /**
   * Origins whose pages may call the endpoint from a browser, as browsers write them: `https://app.example.com`. Agents elsewhere
   * send no Origin and need no entry; any other Origin is refused.
   */
  allowedOrigins: z.array(origin()).default([]),
  /** The strategy that each tier gets unless another one is asked for. */
  tiers: z
    .strictObject({
      starter: strategy().default('rls'),
      pro: strategy().default('schema'),
      enterprise: strategy().default('database'),
    })
    .prefault({}),
  network: z
    .strictObject({
      /** Of the VPC that is made for it. */
      cidr: z
        .cidrv4('must be an IPv4 range, e.g. 10.40.0.0/16')
        // Two subnets of 4,096 addresses, and no more than a VPC may have.
        .regex(/\/1[6-9]$/, 'must be a range from /16 to /19: two subnets of /20 are made in it')
        .default('10.40.0.0/16'),
      /**
       * The two zones of that VPC, e.g. ["us-east-1b", "us-east-1c"]; absent: the region's first two. RDS Proxy is not in
       * every zone: DEPLOYING.md says where to look. Decide before the first deployment: servers stay in their zones.
       */
      zones: z
        .array(z.string().regex(/^[a-z]{2}(-[a-z]+)+-\d[a-z]$/, 'must be a zone’s name, e.g. us-east-1b'))
        .length(2)
        .refine((names) => new Set(names).size === names.length, 'must be two zones, not one twice')
        .optional(),
      /**
       * In place of a VPC of its own: subnets without a way out to the internet, one in each of at least two zones. Never two
       * in one zone: an endpoint takes one subnet a zone, and the deployment would fail.
       */
      existing: z
        .strictObject({
          vpcId: resourceId('vpc'),
          subnetIds: z.array(resourceId('subnet')).min(2),
          /** Of these subnets: the S3 endpoint is made in them. */
          routeTableIds: z.array(resourceId('rtb')).min(1).optional(),
          /** The group of interface endpoints that the VPC has already; what is made joins it. */
          endpointSecurityGroupId: resourceId('sg').optional(),
          /**
           * Services whose endpoints the VPC has already: those of the others are made. Absent: all are there where only a group
           * is given, and none where only route tables are.
           */
          endpointsThere: z.array(z.enum(serviceNames)).optional(),
        })
        .superRefine(endpointsAreComplete)
        .transform((existing) => ({ ...existing, endpointsThere: endpointsThere(existing) }))
        .optional(),
    })
    .prefault({}),
  /** The shared cluster: the catalog, and the homes of `rls` and `schema` tenants. */
  cluster: z
    .discriminatedUnion('kind', [
      z
        .strictObject({
          /** Aurora PostgreSQL Serverless v2. */
          kind: z.literal('aurora'),
          engineVersion: postgres17().default('17.10'),
          /** Aurora capacity units of 2 GiB. */
          minCapacity: z.number().min(0.5).max(256).multipleOf(0.5).default(0.5),
          maxCapacity: z.number().min(1).max(256).multipleOf(0.5).default(16),
          ...anyCluster(),
        })
        // Aurora's own bound: with a higher number the budget would count connections that there are not.
        .refine(({ minCapacity, maxConnections }) => minCapacity >= 1 || maxConnections <= 2_000, {
          path: ['maxConnections'],
          message: 'must be at most 2000, or minCapacity at least 1: below it Aurora gives a server no more',
        }),
      z.strictObject({
        /** An RDS instance. */
        kind: z.literal('instance'),
        engineVersion: postgres17().default('17.10'),
        instanceClass: instanceClass().default('db.m7g.large'),
        storageGb: z.int().min(20).max(65_536).default(100),
        ...anyCluster(),
      }),
    ])
    .prefault({ kind: 'aurora' }),
  /** What each tenant with an instance of its own gets. */
  dedicated: z
    .strictObject({
      engineVersion: postgres17().default('17.10'),
      instanceClass: instanceClass().default('db.t4g.medium'),
      storageGb: z.int().min(20).max(65_536).default(20),
      backupDays: backupDays(),
      maxConnections: z.int().min(20).max(5_000).default(60),
    })
    .prefault({}),
  concurrency: z
    .strictObject({
      /** Environments of the MCP function that may run at once, kept for it alone; absent: what the account has left (1,000 by AWS's default). */
      reserved: z.int().min(1).optional(),
      /** The same of the others that people and agents reach, by function. */
      reservedFor: z
        .strictObject({
          authorizer: z.int().min(1).optional(),
          health: z.int().min(1).optional(),
          admin: z.int().min(1).max(10).optional(),
        })
        .prefault({}),
      /** Environments that are always warm. */
      provisioned: z.int().min(1).optional(),
      /** PostgreSQL connections one environment may hold. */
      connections: z.int().min(1).max(100).default(4),
      /** Tenants with a login of their own in the shared cluster that are active at once: each takes a connection of the proxy. */
      activeSchemaTenants: z.int().min(1).default(400),
    })
    .refine(
      ({ reserved = Number.POSITIVE_INFINITY, provisioned = 0 }) => provisioned <= reserved,
      'provisioned must not be more than reserved',
    )
    .prefault({}),
  /** `four` where RDS Proxy does not keep the statements of one Sync on one connection: `npm run verify:aws` tells. */
  roundTrips: z.enum(['one', 'four']).default('one'),
  /** Requests in five minutes, before the firewall refuses. Agents of many tenants may come from one address. */
  rateLimit: z
    .strictObject({
      perToken: z.int().min(10).default(3_000),
      perAddress: z.int().min(10).default(20_000),
    })
    .prefault({}),
  /**
   * A KMS key of the deployment's own for the shared cluster, new dedicated instances, the product's keys, exports and logs
   * ($1 a month and its requests), so that they can be shut off and every use shows in CloudTrail. Without it AWS's own keys
   * do it: encrypted all the same. A cluster's key is chosen when it is made: decide before the first deployment.
   */
  ownKey: z.boolean().default(false),
  /** Who is told of alarms; they have to confirm once. Absent: alarms are shown and sent to nobody. */
  alarmEmail: z.email().optional(),
  /** Where RUNBOOK.md can be read, so that an alarm's e-mail links to its section: `https://…/RUNBOOK.md`. */
  runbookUrl: publicAddress().optional(),
  logRetentionDays: z.union([7, 14, 30, 60, 90, 180, 365].map((days) => z.literal(days))).default(30),
});

export type Settings = z.output<typeof schema>;

/** @throws Error that names every faulty setting */
export function readSettings(context: unknown): Settings {
  const result = schema.safeParse(typeof context === 'string' ? parseJson(context) : (context ?? {}));
  if (result.success) return result.data;
  const faults = result.error.issues.map(
    ({ path, message }) => `  ${['tenantry', ...path].join('.')}: ${message}`,
  );
  throw new Error(`These settings (cdk.json, context "tenantry") need attention:\n${faults.join('\n')}`);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error('The context value "tenantry" is text, but not JSON: pass the whole object.');
  }
}

/** https, and free of what API Gateway's template language would take for its own. */
function publicAddress() {
  return z
    .url({ protocol: /^https$/, error: 'must be an https address' })
    .regex(/^[^$#]+$/, 'must not contain $ or #');
}

function origin() {
  return z
    .string()
    .refine(
      (text) => URL.parse(text)?.origin === text,
      'must be an origin: https://app.example.com, without a path or a slash at its end',
    );
}

function resourceId(kind: 'vpc' | 'subnet' | 'sg' | 'rtb') {
  return z
    .string()
    .regex(new RegExp(`^${kind}-[0-9a-f]{8,17}$`), `must be an id such as ${kind}-0123456789abcdef0`);
}

function strategy() {
  return z.enum(strategies);
}

function postgres17() {
  return z.string().regex(/^17\.\d+$/, 'must be an exact version of PostgreSQL 17, e.g. 17.10');
}

function instanceClass() {
  return z.string().regex(/^db\.[a-z0-9]+\.[a-z0-9]+$/, 'must be an instance class, e.g. db.m7g.large');
}

function backupDays() {
  return z.int().min(1).max(35).default(14);
}

/** What both kinds of shared cluster have. */
function anyCluster() {
  return {
    /** A second server in another zone that takes over. */
    standby: z.boolean().default(true),
    backupDays: backupDays(),
    /** While true, neither a deployment nor `cdk destroy` can take the data away. */
    deletionProtection: z.boolean().default(true),
    /** `max_connections`; the budget is counted against it. A server takes another number when it is rebooted. */
    maxConnections: z.int().min(100).max(5_000).default(1_000),
    /** RDS Proxy's share of them, percent. */
    proxyPercent: z.int().min(10).max(90).default(80),
  };
}
