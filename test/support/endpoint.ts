import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { mintApiKey, newSigningKey } from '../../functions/lib/auth/api-key.ts';
import { recordApiKey } from '../../functions/lib/catalog/tenants.ts';
import type { TenantId } from '../../functions/lib/tenant/tenant.ts';
import { tools } from '../../functions/mcp/tools/index.ts';
import { scopesOf } from '../../infra/environment.ts';
import { functions } from '../../infra/functions.ts';
import { functionVariables } from '../../infra/local/functions.ts';
import { startGateway } from '../../infra/local/gateway/gateway.ts';
import { LambdaHost } from '../../infra/local/lambda/host.ts';
import { stablePort } from '../../infra/local/ports.ts';
import type { World } from './world.ts';

const root = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');

export interface McpEndpoint {
  readonly url: string;
  /** An API key of the tenant's, as an operator would make it, for every tool. */
  keyOf(tenant: TenantId): Promise<string>;
  close(): Promise<void>;
}

/** What agents reach of a world: the gateway, and behind it authorizer and MCP function, each in processes of its own. */
export async function startEndpoint(world: World): Promise<McpEndpoint> {
  const port = await stablePort([]);
  const url = `http://127.0.0.1:${port}/mcp`;
  const { privateKey, publicKey } = await newSigningKey();
  const scopes = scopesOf(tools);
  const variables = functionVariables({
    publicUrl: url,
    catalogPort: world.plane.catalog.port,
    catalogClusterId: world.plane.catalog.clusterId,
    machineArn: () => '',
    exportUrl: '',
    awsUrl: world.emulator.url,
    accessKeyId: 'test',
    issuerUrl: 'http://127.0.0.1:9',
    extensions: [],
    clockFactor: 1,
    allowedOrigins: [],
    apiKeyJwks: { keys: [publicKey] },
    tools,
  });
  const lambda = new LambdaHost({
    root,
    functions: functions.filter(({ name }) => name === 'mcp' || name === 'authorizer'),
    variables: (name) => variables[name as keyof typeof variables],
    log: () => {},
    onInitError: (name, error) => console.error(`${name} can't be loaded:`, error),
  });
  const facts = { publicUrl: url, issuers: [], scopes, allowedOrigins: [] };
  const gateway = await startGateway({ port, lambda, facts });
  return {
    url,
    async keyOf(tenant) {
      const [keyId, expires] = [randomUUID(), new Date(Date.now() + 86_400_000)];
      await world.asProvisioner('catalog', (catalog) =>
        recordApiKey(catalog, { keyId, tenant, name: 'agent', scopes, expires }),
      );
      return mintApiKey(privateKey, { tenant, keyId, scopes, expires, issuer: url, audience: url });
    },
    async close() {
      await gateway.close();
      await lambda.close();
    },
  };
}
