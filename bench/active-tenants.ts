import type { TestTenant } from '../test/support/world.ts';
import { delayMs, type Ground } from './ground.ts';
import { throughputs } from './measure.ts';
import { type Figure, table } from './report.ts';

const serverConnections = 5;
const activeAtOnce = [5, 10, 20, 40];
const slices = { clients: 40, sliceMs: 1_500, slices: 2 };

/**
 * `schema` tenants don't share server connections: each has a login of its own. What it costs when more of
 * them are active at the same time than there are server connections; rls beside it, which shares them.
 */
export async function run(report: (line: string) => void, ground: Ground): Promise<Figure[]> {
  const schema: TestTenant[] = [];
  while (schema.length < Math.max(...activeAtOnce)) schema.push(await ground.world.addTenant('schema'));
  for (const tenant of schema) await ground.fill(tenant);
  const port = await ground.delayed(await ground.pooler([...ground.tenants, ...schema], serverConnections));

  report(
    `${slices.clients} clients on ${serverConnections} server connections, PgBouncer, +${2 * delayMs} ms: calls per second by tenants active at once.`,
  );
  const figures: Figure[] = [];
  const rows: string[][] = [];
  for (const active of activeAtOnce) {
    const rls = ground.isolated(port, slices.clients);
    const own = ground.isolated(port, slices.clients);
    const [shared] = await throughputs([rls], ground.tenants.slice(0, active), slices);
    const [separate] = await throughputs([own], schema.slice(0, active), slices);
    await Promise.all([rls.close(), own.close()]);
    figures.push({
      name: `throughput, 5 server connections, ${active} active: schema / rls`,
      value: separate! / shared!,
    });
    rows.push([String(active), shared!.toFixed(0), separate!.toFixed(0), (separate! / shared!).toFixed(2)]);
  }
  table(report, ['active tenants', 'rls', 'schema', 'schema / rls'], rows);
  return figures;
}
