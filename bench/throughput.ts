import { delayMs, type Ground } from './ground.ts';
import { throughputs } from './measure.ts';
import { type Figure, table } from './report.ts';

const clients = 32;
const serverConnections = 2;
const slices = { clients, sliceMs: 1_500, slices: 5 };
const atLeastOfUnisolated = 0.85;

/** How much a scarce server connection carries: a transaction held over round trips carries little. */
export async function run(report: (line: string) => void, ground: Ground): Promise<Figure[]> {
  const port = await ground.delayed(await ground.pooler(ground.tenants, serverConnections));
  const paths = [
    await ground.unisolated(port, clients),
    ground.isolated(port, clients),
    await ground.fourTrips(port, clients),
  ];
  const [bare, ours, four] = (await throughputs(paths, ground.tenants, slices)) as [number, number, number];
  await Promise.all(paths.map((path) => path.close()));
  report(
    `${clients} clients on ${serverConnections} server connections, PgBouncer, +${2 * delayMs} ms, rls. Calls per second, median of ${slices.slices} slices of ${slices.sliceMs / 1000} s in turn.`,
  );
  const ratio = (value: number) => (value / bare).toFixed(2);
  table(
    report,
    ['path', 'calls/s', 'of un-isolated'],
    [
      ['un-isolated', bare.toFixed(0), '1.00'],
      ['ours', ours.toFixed(0), ratio(ours)],
      ['four trips', four.toFixed(0), ratio(four)],
    ],
  );
  return [
    {
      name: 'throughput, 2 server connections: ours / un-isolated',
      value: ours / bare,
      atLeast: atLeastOfUnisolated,
    },
    { name: 'throughput, 2 server connections: four trips / un-isolated', value: four / bare },
  ];
}
