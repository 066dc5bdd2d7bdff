import { delayMs, type Ground, pgbouncerIsInstalled, type Way } from './ground.ts';
import { latencies } from './measure.ts';
import { type Figure, table } from './report.ts';

const calls = 600;
/** Ratios at the median, where the database is 1 ms away. */
const atMostOfUnisolated = 1.12;
const atLeastFasterThanFour = 3;

/** What isolation costs one call, against the same statement without it and against the textbook. */
export async function run(report: (line: string) => void, ground: Ground): Promise<Figure[]> {
  const { port } = ground.world.cluster.server;
  const ways: Way[] = [
    { name: 'direct', port },
    { name: `direct, +${2 * delayMs} ms`, port: await ground.delayed(port) },
  ];
  if (pgbouncerIsInstalled) {
    const pooler = await ground.pooler(ground.tenants, 4);
    ways.push(
      { name: 'PgBouncer', port: pooler },
      { name: `PgBouncer, +${2 * delayMs} ms`, port: await ground.delayed(pooler) },
    );
  }
  report(
    `One tool query, 20 rows by an index, rls, ${ground.tenants.length} tenants in turn. Median of ${calls} calls a path, one after the other,`,
  );
  report(
    'the paths taking turns. "four trips": BEGIN, set_config, query, COMMIT one by one, a plain policy.',
  );

  const figures: Figure[] = [];
  const rows: string[][] = [];
  for (const way of ways) {
    const paths = [
      await ground.unisolated(way.port, 1),
      ground.isolated(way.port, 1),
      await ground.fourTrips(way.port, 1),
    ];
    const [bare, ours, four] = (await latencies(paths, ground.tenants, calls)) as [number, number, number];
    await Promise.all(paths.map((path) => path.close()));
    const far = way.name.includes('+');
    const cost: Figure = { name: `latency, ${way.name}: ours / un-isolated`, value: ours / bare };
    const gain: Figure = { name: `latency, ${way.name}: four trips / ours`, value: four / ours };
    figures.push(
      far ? { ...cost, atMost: atMostOfUnisolated } : cost,
      far ? { ...gain, atLeast: atLeastFasterThanFour } : gain,
    );
    const ms = (value: number) => value.toFixed(3);
    rows.push([
      way.name,
      ms(bare),
      ms(ours),
      ms(four),
      `${cost.value.toFixed(2)}x`,
      `${gain.value.toFixed(2)}x`,
    ]);
  }
  table(
    report,
    ['way', 'un-isolated', 'ours', 'four trips', 'ours / un-isolated', 'four trips / ours'],
    rows,
  );
  return figures;
}
