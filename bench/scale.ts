import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { releaseWith } from '../test/lib/lifecycle/migrate.support.ts';
import { probe } from '../test/lib/lifecycle/probe.support.ts';
import { startWorld } from '../test/support/world.ts';
import { file, fleetServer, makeHomes, range, releaseOf, throughMachine } from './homes.ts';
import { timed } from './measure.ts';
import { type Figure, table } from './report.ts';

/** Step Functions' own, for one execution. */
const mostBytes = 262_144;
const mostEvents = 25_000;
/** Of the memory that a run takes, with so many more homes. What is measured are a few MiB, and collections come when they come. */
const mostGrowth = 1.5;

/** What a run over the whole fleet takes, planned, migrated and gated, beside one over a few hundred homes. */
export async function run(
  report: (line: string) => void,
  homes: number,
  few = Math.min(600, Math.floor(homes / 2)),
): Promise<Figure[]> {
  const world = await startWorld({ parameters: fleetServer });
  try {
    report(
      `A migration of five statements by the state machine, with tool calls at its gates: ${few} homes, then ${homes}.`,
    );
    let release = releaseOf(world);
    const access = world.access();
    const rows: { homes: number; ms: number; events: number; largest: number; heap: number }[] = [];
    for (const [round, size] of [few, homes].entries()) {
      const before = round === 0 ? 0 : few;
      const made = await timed(() => makeHomes(world, release, range(size).slice(before)));
      report(`(${size - before} homes made in ${(made / 1000).toFixed(0)} s)`);
      release = releaseWith({ ...world, release }, file(round));
      const begun = performance.now();
      const { result, heap } = await watched(() =>
        throughMachine(world, release, { probe: (tenant) => probe(access, tenant) }),
      );
      rows.push({ homes: size, ms: performance.now() - begun, heap, ...result });
    }
    table(
      report,
      ['homes', 'ms a home', 'history events', 'largest payload, bytes', 'memory, MiB'],
      rows.map(({ homes, ms, events, largest, heap }) => [
        String(homes),
        (ms / homes).toFixed(2),
        String(events),
        String(largest),
        (heap / 2 ** 20).toFixed(1),
      ]),
    );
    const [small, large] = rows as [(typeof rows)[0], (typeof rows)[0]];
    return [
      { name: `history of a run over ${homes} homes, events`, value: large.events, atMost: mostEvents },
      {
        name: `largest payload of a run over ${homes} homes, bytes`,
        value: large.largest,
        atMost: mostBytes,
      },
      {
        name: `memory of a run, ${homes} homes / ${few}`,
        value: large.heap / small.heap,
        atMost: mostGrowth,
      },
    ];
  } finally {
    await world.close();
  }
}

/** The most that is alive at any time of the work, beyond what was before it: measured after collecting, once a second. */
async function watched<T>(work: () => Promise<T>): Promise<{ result: T; heap: number }> {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const alive = () => {
    collect();
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
  const before = alive();
  let most = before;
  const timer = setInterval(() => {
    most = Math.max(most, alive());
  }, 1_000);
  try {
    const result = await work();
    // Less than a MiB is noise.
    return { result, heap: Math.max(2 ** 20, most - before, alive() - before) };
  } finally {
    clearInterval(timer);
  }
}
