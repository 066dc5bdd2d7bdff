import { expect, it } from 'vitest';
import type { Credentials } from '../../../functions/lib/isolation/credentials.ts';
import { database } from '../../../functions/lib/isolation/database.ts';
import { type TenantId, tenantId } from '../../../functions/lib/tenant/tenant.ts';

const [tenant, here, there] = ['1', '2', '3'].map((digit) =>
  tenantId(`${digit.repeat(8)}-0000-4000-8000-000000000000`),
) as [TenantId, string, string];
const shared = '44444444-0000-4000-8000-000000000000';

/** Where a call of a tenant goes that has two databases for a while, and whose secret tells of the first. */
function located(use: Credentials['use'], homeId: string, clusterId: string) {
  const credentials: Credentials = {
    use,
    password: () => Promise.reject(new Error('not a shared login')),
    tenantDatabase: async () => ({
      engine: 'postgres',
      ...{ host: 'first', port: 1, dbname: 'one', username: `t_${here}`, password: 'secret' },
    }),
    token: async ({ host, login }) => `token of ${login} at ${host}`,
  };
  const route = {
    ...{ tenant, slug: 's', epoch: 1, schemaVersion: null },
    status: 'active',
    strategy: 'database',
    ...{ homeId, clusterId, databaseId: homeId, login: `t_${homeId}`, schema: 'main' },
    ...{ host: 'second', port: 2, database: 'two' },
  } as const;
  return database.locate(route, credentials, 'off', false);
}

const endpointOf = async (found: ReturnType<typeof located>) => {
  const { host, database, password } = await found;
  return [host, database, await password(false)];
};

it('where logins use IAM, only an instance of its own has the password, whatever the secret holds for the other', async () => {
  // From the shared cluster, in use, to an instance; and the instance itself, which the secret does not tell of yet.
  expect(await endpointOf(located('iam', here, shared))).toEqual([
    'first',
    'one',
    `token of t_${here} at first`,
  ]);
  expect(await endpointOf(located('iam', there, there))).toEqual(['second', 'two', 'secret']);
  // From an instance to the shared cluster.
  expect(await endpointOf(located('iam', here, here))).toEqual(['first', 'one', 'secret']);
  expect(await endpointOf(located('iam', there, shared))).toEqual([
    'second',
    'two',
    `token of t_${there} at second`,
  ]);
});

it('where logins have passwords, both databases have the same', async () => {
  expect(await endpointOf(located('secret', here, shared))).toEqual(['first', 'one', 'secret']);
  expect(await endpointOf(located('secret', there, shared))).toEqual(['second', 'two', 'secret']);
});
