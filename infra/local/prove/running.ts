import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { JWK } from 'jose';
import type { Secrets } from '../../../functions/lib/aws/secrets.ts';
import type { Route } from '../../../functions/lib/catalog/route.ts';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { isolations } from '../../../functions/lib/isolation/isolation.ts';
import { type ControlPlane, catalogEndpoint } from '../../../functions/lib/lifecycle/control-plane.ts';
import { contextKeySecret, createPlane, secretsOf, signingKeySecret } from '../control-plane.ts';
import type { Instance } from '../emulator/rds-state.ts';
import { type Secret, SecretStore } from '../emulator/secret-store.ts';
import { commandLine } from '../processes.ts';
import { openCloudState } from '../state.ts';
import type { Party } from './party.ts';

/** There is nothing to attack; the message says what to do. */
export class NotRunning extends Error {}

export interface RunningSystem {
  readonly url: string;
  readonly plane: ControlPlane;
  /** Access tokens by slug, as agents have them: of tenants that are served. Others' open nothing. */
  readonly tokens: ReadonlyMap<string, string>;
  /** With which the product signs API keys. */
  readonly signing: { private: JWK; public: JWK };
  readonly sharedPort: number;
}

/** What `npm start` has written into its folder. @throws NotRunning */
export async function findRunning(folder: string): Promise<RunningSystem> {
  const { pid, url } = readJson<{ pid: number; url?: string }>(folder, 'run.json');
  if (url === undefined || !commandLine(pid)?.includes('infra/local/main.ts')) throw notRunning();
  const aws = readJson<{ secrets: Record<string, Secret>; instances: Record<string, Instance> }>(
    folder,
    'aws.json',
  );
  const agents = readJson<{ mcpServers: Record<string, { headers: { Authorization: string } }> }>(
    folder,
    'mcp.json',
  );
  const shared = aws.instances['tenantry-shared'];
  if (shared === undefined) throw notRunning();
  // A copy: what is written here reaches neither the running system nor its file.
  const secrets: Secrets = secretsOf(new SecretStore(aws.secrets, async () => {}, Date.now));
  const plane = createPlane(
    await openCloudState(folder),
    secrets,
    await secrets.read(contextKeySecret),
    shared,
    [],
  );
  const { rows } = await withConnection(catalogEndpoint(plane), (catalog) =>
    catalog.query<{ slug: string }>(`select slug from catalog.tenants where status = 'active'`),
  );
  const served = new Set(rows.map(({ slug }) => slug));
  const tokens = Object.entries(agents.mcpServers)
    .filter(([slug]) => served.has(slug))
    .map(([slug, { headers }]) => [slug, headers.Authorization.replace('Bearer ', '')] as const);
  return {
    url,
    plane,
    tokens: new Map(tokens),
    signing: JSON.parse(await secrets.read(signingKeySecret)),
    sharedPort: shared.port,
  };
}

function readJson<T>(folder: string, name: string): T {
  try {
    return JSON.parse(readFileSync(join(folder, name), 'utf8'));
  } catch {
    throw notRunning();
  }
}

const notRunning = () =>
  new NotRunning('Tenantry is not running here: run `npm start` in another terminal, then this again.');

/** The active tenant of each strategy that has been here longest. */
export async function victimsOf({ plane }: RunningSystem): Promise<Party[]> {
  const rows = await withConnection(catalogEndpoint(plane), (catalog) =>
    catalog.query<Route & { database_id: string }>(
      `select distinct on (h.strategy) t.tenant_id as tenant, t.slug, t.status, h.strategy, h.epoch::int, h.home_id as "homeId",
              h.database_id as "databaseId", h.database_name as database, h.schema_name as schema, h.login,
              h.cluster_id as "clusterId", c.host, c.port
         from catalog.tenants t join catalog.homes h on h.home_id = t.home_id join catalog.clusters c on c.cluster_id = h.cluster_id
        where t.status = 'active' and not t.is_canary order by h.strategy, t.created_at`,
    ),
  );
  return Promise.all(
    rows.rows.map(async (route) => ({
      ...route,
      name: route.slug,
      endpoint: await isolations[route.strategy].locate(route, plane.credentials, plane.tls, false),
    })),
  );
}
