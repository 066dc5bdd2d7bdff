import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { TenantryError } from '../../functions/lib/errors.ts';
import type { Tool } from '../../functions/lib/mcp/tool.ts';
import { welcome, writeAgentFile } from './agents.ts';
import { startCloud } from './cloud.ts';
import { isFree } from './ports.ts';
import { endOrphans } from './processes.ts';
import { Refused } from './refused.ts';
import { claimFolder } from './run-file.ts';
import { readLocalSettings } from './settings.ts';
import { forget, postgresFolder } from './state.ts';

/** `npm start`: the whole product on this machine. */
const root = join(import.meta.dirname, '../..');
const closers: (() => Promise<void> | void)[] = [];
let stopping = false;

const progress = (step: string) =>
  console.log(`${(performance.now() / 1000).toFixed(1).padStart(5)} s  ${step}`);

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => void stop(0));
process.on('uncaughtException', fail);
process.on('unhandledRejection', fail);

try {
  await start();
} catch (error) {
  fail(error);
}

async function start(): Promise<void> {
  const settings = readLocalSettings(process.env, process.argv.slice(2), root);
  const { folder, port } = settings;
  mkdirSync(folder, { recursive: true });
  const run = claimFolder(folder);
  closers.push(run.release);
  if (!(await isFree(port)))
    throw new Refused(
      `Port ${port} is in use by another program: choose another, e.g. PORT=${port + 1} npm start`,
    );
  const orphans = await endOrphans(postgresFolder(folder));
  if (orphans > 0)
    progress(
      `Stopped ${orphans} PostgreSQL server${orphans > 1 ? 's' : ''} of an earlier run that was killed`,
    );
  if (settings.fresh) {
    progress('Starting over');
    await forget(folder);
  }
  const { publicUrl, tokens } = await startCloud(
    settings,
    root,
    await loadTools(),
    (close) => closers.push(close),
    progress,
  );
  const file = writeAgentFile(folder, publicUrl, tokens);
  run.serving(publicUrl);
  progress('Ready');
  console.log(welcome(publicUrl, file, tokens));
}

async function loadTools(): Promise<readonly Tool[]> {
  try {
    return (await import('../../functions/mcp/tools/index.ts')).tools;
  } catch (error) {
    throw new Refused(
      `functions/mcp/tools can't be loaded:\n${error instanceof Error ? error.stack : error}`,
    );
  }
}

/** In the reverse order of the start; leaves no process behind, whatever had been started. */
async function stop(wanted: number): Promise<void> {
  if (stopping) return;
  stopping = true;
  let code = wanted;
  for (const close of closers.reverse()) {
    try {
      await close();
    } catch (error) {
      console.error(error);
      code = 1;
    }
  }
  process.exit(code);
}

function fail(error: unknown): void {
  // A start that is being stopped fails somewhere: that is no news.
  if (stopping) return;
  const isToldInFull = error instanceof Refused || error instanceof TenantryError;
  console.error(isToldInFull ? error.message : error);
  void stop(1);
}
