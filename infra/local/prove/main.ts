import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { readLocalSettings } from '../settings.ts';
import { corpus } from './corpus.ts';
import { attackEndpoint } from './endpoint.ts';
import { letIn } from './intruders.ts';
import { closeTargets, isAmong, prepareTargets, prove } from './prove.ts';
import { inVain, json, type Report, table } from './report.ts';
import { findRunning, NotRunning, victimsOf } from './running.ts';

/**
 * `npm run prove [-- --json] [--table <name> …]`: attacks the system that `npm start` runs here, every tenant table included or
 * those that are named, and says what held. Exit codes: 0 all held, 1 something leaked or failed, 2 usage, 4 not running.
 */
let isStopped = false;
try {
  const { json: asJson, table: only } = options();
  const report = await run(only, asJson ? () => {} : (text) => process.stderr.write(text));
  console.log(asJson ? json(report) : table(report));
  process.exitCode = report.findings.some(({ outcome }) => outcome === 'leaked') ? 1 : 0;
} catch (error) {
  // An attempt that lost its intruder is no failure, and its end is not this process's.
  if (!isStopped) {
    console.error(error instanceof NotRunning ? error.message : error);
    // Connections of what was begun would keep it from ending.
    process.exit(error instanceof NotRunning ? 4 : 1);
  }
}

function options() {
  try {
    return parseArgs({
      options: { json: { type: 'boolean', default: false }, table: { type: 'string', multiple: true } },
    }).values;
  } catch (error) {
    return misused((error as Error).message);
  }
}

function misused(message: string): never {
  console.error(`${message}\nUsage: npm run prove [-- --json] [--table <name> …]`);
  process.exit(2);
}

async function run(only: readonly string[] | undefined, progress: (text: string) => void): Promise<Report> {
  const { folder } = readLocalSettings(process.env, [], join(import.meta.dirname, '../../..'));
  const system = await findRunning(folder);
  const { keys } = system.plane;
  const targets = await prepareTargets(keys, await victimsOf(system));
  const tables: Record<string, string[]> = {};
  const withoutRows: Record<string, string[]> = {};
  for (const { party, tables: own, views, sample } of targets) {
    const attacked = [...own, ...views].filter(isAmong(only));
    tables[party.name] = attacked;
    // The product's own gets no rows: a home is tried by it.
    withoutRows[party.name] = attacked.filter((name) => !sample.rows.has(name) && name !== 'tenancy_probe');
  }
  const nowhere = only?.filter((name) => !Object.values(tables).flat().includes(name)) ?? [];
  if (nowhere.length > 0) misused(`No tenant here has a table or view ${nowhere.join(', ')}.`);
  progress(`Attacking ${Object.keys(tables).join(', ')} at ${system.url}\n`);
  for (const line of inVain(withoutRows)) progress(`${line}\n`);
  progress('The watch sees these intruders, too, and calls isolation broken until a minute after the end.\n');
  const intruders = await letIn(system.plane);
  // Ctrl-C, too, leaves no intruder behind.
  const stop = () => {
    isStopped = true;
    void intruders.remove().finally(() => process.exit(130));
  };
  process.once('SIGINT', stop).once('SIGTERM', stop);
  try {
    const started = Date.now();
    const onTried = (tried: number, all: number) => {
      const minutesLeft = Math.ceil(((Date.now() - started) * (all - tried)) / tried / 60_000);
      if (tried % 100 === 0) progress(`  ${tried} of ${all} attempts, about ${minutesLeft} min left    \r`);
    };
    const below = await prove({ keys, attackers: intruders.parties, targets, themes: corpus, only, onTried });
    return {
      url: system.url,
      tables,
      withoutRows,
      findings: [...below, ...(await attackEndpoint(system, targets))],
    };
  } finally {
    await closeTargets(targets);
    await intruders.remove();
  }
}
