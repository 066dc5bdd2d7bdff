import { z } from 'zod';
import { regionOf } from '../../functions/lib/aws/signed-request.ts';

const verifySchema = z
  .object({
    /** The endpoint's URL. */
    VERIFY_URL: z.url({
      protocol: /^https$/,
      error: 'must be the endpoint’s https address, the output EndpointUrl',
    }),
    /** An API key: `npm run tenants -- keys create …`. */
    VERIFY_KEY: z.string().min(1).optional(),
    /** A key that lacks a scope. */
    VERIFY_NARROW_KEY: z.string().min(1).optional(),
    /** The proxy's name. */
    VERIFY_PROXY: z.string().min(1).optional(),
    AWS_REGION: z.string().min(1).default('us-east-1'),
  })
  .transform((env) => ({
    url: env.VERIFY_URL,
    key: env.VERIFY_KEY,
    narrowKey: env.VERIFY_NARROW_KEY,
    proxy: env.VERIFY_PROXY,
    region: env.AWS_REGION,
  }));

/** What `cdk deploy` writes into the file that `cdk.json` names: outputs by stack. */
type Outputs = Readonly<Record<string, Readonly<Record<string, string>>>>;

/**
 * Of `npm run verify:aws`: addresses are the last deployment's outputs, unless a variable says otherwise.
 * @throws Error that names every faulty variable
 */
export function readVerifySettings(
  outputs: Outputs = {},
  env: Readonly<Record<string, string | undefined>> = process.env,
) {
  const { TenantryEndpoint: endpoint, TenantryData: data, TenantryControl: control } = outputs;
  const deployed = { VERIFY_URL: endpoint?.EndpointUrl, VERIFY_PROXY: data?.ProxyName };
  // Where that proxy is, wherever this shell's commands go: the admin API has no name of its own to hide it.
  const region = control?.AdminUrl && regionOf(new URL(control.AdminUrl));
  const there = region && env.VERIFY_PROXY === undefined ? { AWS_REGION: region } : {};
  const result = verifySchema.safeParse({ ...deployed, ...env, ...there });
  if (result.success) return result.data;
  const faults = result.error.issues.map(({ path, message }) => `  ${path.join('.')}: ${message}`);
  throw new Error(`These environment variables need attention:\n${faults.join('\n')}`);
}
