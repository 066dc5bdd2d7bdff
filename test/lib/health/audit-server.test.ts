import { expect, it } from 'vitest';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { auditServer } from '../../../functions/lib/health/audit-server.ts';
import { startWorld } from '../../support/world.ts';

it('names a server on which a login can keep a home’s fence past its session', async () => {
  const world = await startWorld({ parameters: { max_prepared_transactions: '1' } });
  try {
    const { a } = world.tenants.rls;
    await world.asLogin(a, async (connection) => {
      await connection.query('begin');
      await connection.query(`call tenancy.admit('${world.context(a, { mode: 'w' })}')`);
      await connection.query("prepare transaction 'kept'");
    });
    const found = await withConnection(world.superuser('tenantry'), async (connection) => {
      const { rows } = await connection.query(
        "select from pg_locks where locktype = 'advisory' and pid is null and granted",
      );
      expect(rows).not.toEqual([]);
      const found = await auditServer(connection);
      await connection.query("rollback prepared 'kept'");
      return found;
    });
    expect(found.map(({ check, object, finding }) => `${check}: ${object} ${finding}`)).toEqual([
      'server: parameter max_prepared_transactions is 1: any login can keep its locks for ever',
      'replication: prepared transaction kept holds its locks in database tenantry',
    ]);
  } finally {
    await world.close();
  }
});
