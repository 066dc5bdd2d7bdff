import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { tenantsDatabase } from '../../../functions/lib/migrations/install.ts';
import { strategies, type TestTenant } from '../../support/world.ts';
import { type Leaving, startLeaving, steps } from './leaving.ts';

/** What a neighbour's hostile SQL has granted to a tenant's login keeps that tenant from leaving no longer than a moment. */
let leaving: Leaving;
beforeAll(async () => {
  leaving = await startLeaving();
});
afterAll(() => leaving?.world.close());

const object = async (neighbour: TestTenant, to: readonly string[]) =>
  leaving.world.asLogin(neighbour, async (connection) => {
    const { rows } = await connection.query<{ oid: number }>('select lo_create(0) as oid');
    for (const grantee of to)
      await connection.query(
        `grant select on large object ${rows[0]!.oid} to ${grantee} with grant option`.replace(
          'public with grant option',
          'public',
        ),
      );
    return rows[0]!.oid;
  });

describe.each(strategies)('a neighbour of %s', (attacker) => {
  it.each(['schema', 'database'] as const)('keeps no tenant of %s from leaving', async (strategy) => {
    const { world } = leaving;
    const { tenant, slug } = await leaving.tenantOf(strategy, 'shared-cluster');
    const [{ login }] = (
      await world.asProvisioner('catalog', (catalog) =>
        catalog.query<{ login: string }>('select login from catalog.homes where tenant_id = $1', [tenant]),
      )
    ).rows as [{ login: string }];
    const { a, b } = world.tenants[attacker];
    await object(a, [`"${login}"`, 'public']);
    const passedOn = await object(a, [`"${world.tenants.schema.b.home.login}"`]);
    // Handed on by another neighbour where both are in one database.
    if (attacker === 'schema')
      await world.asLogin(b, (connection) =>
        connection.query(`grant select on large object ${passedOn} to "${login}"`),
      );
    await world.asLogin(a, (connection) =>
      connection.query(
        `alter default privileges grant select on tables to "${login}"; alter default privileges grant execute on functions to "${login}"`,
      ),
    );

    const operation = await leaving.begin(tenant, slug);
    for (const step of steps) await leaving.run(operation, step);
    expect(await leaving.read(operation)).toMatchObject({ state: 'done', result: { left: [] } });

    // The power that it took for a moment is given back.
    const { place } = a;
    await withConnection({ ...place.admin, database: tenantsDatabase }, async (connection) => {
      const { rows } = await connection.query(
        `select pg_has_role('tenancy_provisioner', '${a.home.login}', 'usage') as uses`,
      );
      expect(rows).toEqual([{ uses: false }]);
    });
  });
});
