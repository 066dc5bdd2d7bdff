import { availableParallelism, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import * as activeTenants from './active-tenants.ts';
import * as coldStart from './cold-start.ts';
import * as fleet from './fleet.ts';
import { Ground, pgbouncerIsInstalled } from './ground.ts';
import * as handler from './handler.ts';
import * as health from './health.ts';
import * as latency from './latency.ts';
import * as moves from './moves.ts';
import * as provision from './provision.ts';
import { type Figure, holds } from './report.ts';
import * as scale from './scale.ts';
import * as throughput from './throughput.ts';
import * as warmAndCold from './warm-and-cold.ts';

/**
 * `npm run bench`: prints how fast the product is and exits 1 when a bar is missed. `--json`: for programs. `--only
 * latency,fleet`: these sections. `--homes 5000`: the fleet's size. `--moves 100`: of the small tenant; `--faults 200`:
 * and so many beside them in which something dies, in one server and in three.
 */
const { values } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    only: { type: 'string' },
    homes: { type: 'string', default: '1000' },
    moves: { type: 'string', default: '12' },
    faults: { type: 'string', default: '0' },
  },
});
const report = (line: string) => (values.json ? console.error(line) : console.log(line));
const wanted = values.only?.split(',');
const isWanted = (name: string) => wanted === undefined || wanted.includes(name);

type Section = { run(report: (line: string) => void, ground: Ground): Promise<Figure[]> };
/** On one ground, which takes a while to prepare. */
const grounded: Record<string, Section> = {
  latency,
  'warm-and-cold': warmAndCold,
  ...(pgbouncerIsInstalled && { throughput, 'active-tenants': activeTenants }),
};
/** Each in a world of its own. */
const others: Record<string, () => Promise<Figure[]>> = {
  async handler() {
    const measured = await handler.run(report);
    return measured.map(({ family, method, medianMs, targetMs }) => ({
      name: `handler, ${family} ${method}, ms`,
      value: medianMs,
      atMost: targetMs,
    }));
  },
  'cold-start': () => coldStart.run(report),
  health: () => health.run(report),
  fleet: () => fleet.run(report, Number(values.homes)),
  provision: () => provision.run(report),
  // Half an hour: only when it is asked for.
  ...(wanted?.includes('scale') && { scale: () => scale.run(report, Number(values.homes)) }),
  'moves-speed': () => moves.speed(report),
  moves: () => moves.run(report),
  'moves-many': () => moves.many(report, Number(values.moves), Number(values.faults)),
};

const figures: Figure[] = [];
const [load] = loadavg();
report(
  `Node ${process.version}, ${availableParallelism()} cores, load ${load!.toFixed(1)}. Ratios of one run are what counts; times depend on the machine.\n` +
    'With a load near the number of cores the ratios too are wrong: what costs processor time is delayed, the network is not.\n',
);
for (const [, run] of Object.entries(others).filter(([name]) => isWanted(name))) {
  figures.push(...(await run()));
  report('');
}
const onGround = Object.entries(grounded).filter(([name]) => isWanted(name));
if (onGround.length > 0) {
  const ground = await Ground.prepare();
  try {
    for (const [, section] of onGround) {
      figures.push(...(await section.run(report, ground)));
      report('');
    }
  } finally {
    await ground.close();
  }
}

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
