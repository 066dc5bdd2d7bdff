import { availableParallelism, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import * as activeTenants from './active-tenants.ts';
import { Ground, pgbouncerIsInstalled } from './ground.ts';
import * as handler from './handler.ts';
import * as health from './health.ts';
import * as latency from './latency.ts';
import { type Figure, holds } from './report.ts';
import * as throughput from './throughput.ts';
import * as warmAndCold from './warm-and-cold.ts';

/** `npm run bench`: prints how fast the product is and exits 1 when a bar is missed. `--json`: for programs. */
const { values } = parseArgs({ options: { json: { type: 'boolean', default: false } } });
const report = (line: string) => (values.json ? console.error(line) : console.log(line));

const figures: Figure[] = [];
const [load] = loadavg();
report(
  `Node ${process.version}, ${availableParallelism()} cores, load ${load!.toFixed(1)}. Ratios of one run are what counts; times depend on the machine.\n` +
    'With a load near the number of cores the ratios too are wrong: what costs processor time is delayed, the network is not.\n',
);
for (const { family, method, medianMs, targetMs } of await handler.run(report)) {
  figures.push({ name: `handler, ${family} ${method}, ms`, value: medianMs, atMost: targetMs });
}
report('');
figures.push(...(await health.run(report)));
const ground = await Ground.prepare();
try {
  const sections = [
    latency,
    warmAndCold,
    ...(pgbouncerIsInstalled ? [throughput, activeTenants] : []),
    health,
  ];
  for (const section of sections) {
    report('');
    figures.push(...(await section.run(report, ground)));
  }
} finally {
  await ground.close();
}

report('');
if (!pgbouncerIsInstalled) {
  report(
    '*** SKIPPED: all that goes through a pooler, because PgBouncer is missing (apt-get install pgbouncer) ***\n',
  );
}
for (const figure of figures.filter((each) => holds(each) !== undefined)) {
  const bar = figure.atMost === undefined ? `at least ${figure.atLeast}` : `at most ${figure.atMost}`;
  report(`${holds(figure) ? 'held  ' : 'MISSED'} ${figure.name}: ${figure.value.toFixed(2)} (${bar})`);
}
if (values.json) {
  const rows = figures.map((figure) => ({ ...figure, held: holds(figure) ?? null }));
  console.log(
    JSON.stringify({ node: process.version, pooler: pgbouncerIsInstalled, figures: rows }, undefined, 2),
  );
}
process.exitCode = figures.some((figure) => holds(figure) === false) ? 1 : 0;
