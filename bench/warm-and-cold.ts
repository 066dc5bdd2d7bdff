import { strategies, type TestTenant } from '../test/support/world.ts';
import { delayMs, type Ground } from './ground.ts';
import { latencies, median, timed } from './measure.ts';
import { type Figure, table } from './report.ts';

const calls = 400;
const connects = 40;

/** A call on a connection that is there, and one that has to connect first (SCRAM, no TLS), by strategy. */
export async function run(report: (line: string) => void, ground: Ground): Promise<Figure[]> {
  const port = await ground.delayed(ground.world.cluster.server.port);
  const tenants = strategies.map((strategy) => ground.world.tenants[strategy].a);
  for (const tenant of tenants) await ground.fill(tenant);

  const only = (tenant: TestTenant) => {
    const path = ground.isolated(port, 1);
    return { ...path, run: () => path.run(tenant) };
  };
  const paths = tenants.map(only);
  const warm = await latencies(paths, tenants, calls);
  await Promise.all(paths.map((path) => path.close()));

  const colds: number[][] = tenants.map(() => []);
  for (let round = 0; round < connects; round += 1) {
    for (const [index, tenant] of tenants.entries()) {
      const path = only(tenant);
      colds[index]!.push(await timed(path.run));
      await path.close();
    }
  }
  report(
    `One tool query, direct, +${2 * delayMs} ms, by strategy. Median, ms; warm of ${calls}, cold of ${connects} calls.`,
  );
  const cold = colds.map(median);
  const ms = (value: number) => value.toFixed(2);
  table(
    report,
    ['strategy', 'warm', 'cold'],
    strategies.map((strategy, index) => [strategy, ms(warm[index]!), ms(cold[index]!)]),
  );
  return strategies.flatMap((strategy, index) => [
    { name: `warm call, ${strategy}, ms`, value: warm[index]! },
    { name: `cold call, ${strategy}, ms`, value: cold[index]! },
  ]);
}
