import { z } from 'zod';

/**
 * What an adopting team decides about its deployment: the object `tenantry` of CDK's context. It stands in `cdk.json`,
 * or is given as JSON text for one environment: `cdk deploy -c tenantry="$(cat staging.json)"`.
 */
const schema = z.strictObject({
  /** Where to deploy; absent: where the CDK command line points. */
  region: z
    .string()
    .regex(/^[a-z]{2}(-[a-z]+)+-\d$/, 'must be an AWS region, e.g. eu-west-1')
    .optional(),
  /** The endpoint's own name. Absent: API Gateway's address, whose stage stands in the path. */
  domain: z
    .strictObject({
      name: z.hostname('must be a host name, e.g. mcp.example.com'),
      /** In the same region. */
      certificateArn: z.string().regex(/^arn:[\w-]+:acm:/, 'must be the ARN of an ACM certificate'),
    })
    .optional(),
  /** OIDC issuers whose tokens are accepted. None is fine: the product's own API keys then serve. */
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
  /** Public keys (JWKS) of the product's own API keys. */
  apiKeyJwks: z
    .object({ keys: z.array(z.looseObject({ kty: z.string(), kid: z.string() })) })
    .default({ keys: [] }),
  /** Values of the Origin header that are let through. Agents send none, and need no entry; any other Origin is refused. */
  allowedOrigins: z.array(z.url()).default([]),
  concurrency: z
    .strictObject({
      /** Environments of the MCP function that may run at once; absent: what the account has left. */
      reserved: z.int().min(1).optional(),
      /** PostgreSQL connections one environment may hold. */
      connections: z.int().min(1).max(100).default(4),
    })
    .prefault({}),
  /** Where the MCP function runs: subnets without a way out to the internet, with a route to the databases. */
  network: z.strictObject({
    vpcId: resourceId('vpc'),
    subnetIds: z.array(resourceId('subnet')).min(1),
    securityGroupIds: z.array(resourceId('sg')).min(1),
  }),
  catalog: z.strictObject({ host: z.hostname(), port: z.int().min(1).max(65535).default(5432) }),
  /** Resource ids (`prx-…` of a proxy, `cluster-…` or `db-…` of a database) that IAM logins may connect to. */
  clusters: z
    .array(z.string().regex(/^(prx|cluster|db)-[\w]+$/, 'must be a resource id, e.g. prx-0123'))
    .min(1),
  logRetentionDays: z.union([7, 14, 30, 60, 90, 180, 365].map((days) => z.literal(days))).default(30),
});

export type Settings = z.output<typeof schema>;

/** @throws Error that names every faulty setting */
export function readSettings(context: unknown): Settings {
  const result = schema.safeParse(typeof context === 'string' ? parseJson(context) : (context ?? {}));
  if (result.success) return result.data;
  const faults = result.error.issues.map((issue) => `  tenantry.${issue.path.join('.')}: ${issue.message}`);
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

function resourceId(kind: 'vpc' | 'subnet' | 'sg') {
  return z
    .string()
    .regex(new RegExp(`^${kind}-[0-9a-f]{8,17}$`), `must be an id such as ${kind}-0123456789abcdef0`);
}
