import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { commandLine } from './processes.ts';
import { Refused } from './refused.ts';

/** One local cloud a folder. */
export interface RunFile {
  /** Lets a second start say where this one is. */
  serving(url: string): void;
  release(): void;
}

/** @throws Refused when one is running; a file that a killed run left is taken over */
export function claimFolder(folder: string): RunFile {
  mkdirSync(folder, { recursive: true });
  const file = join(folder, 'run.json');
  const write = (url: string | undefined, flag: string) =>
    writeFileSync(file, JSON.stringify({ pid: process.pid, url }), { mode: 0o600, flag });
  for (;;) {
    try {
      write(undefined, 'wx');
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      const { pid, url } = readRun(file);
      if (pid !== process.pid && commandLine(pid)?.includes('infra/local/main.ts'))
        throw alreadyRunning(pid, url);
      rmSync(file, { force: true });
    }
  }
  return { serving: (url) => write(url, 'w'), release: () => rmSync(file, { force: true }) };
}

const alreadyRunning = (pid: number, url: string | undefined) =>
  new Refused(
    url === undefined
      ? `Tenantry is already starting here (process ${pid}).`
      : `Tenantry is already running at ${url} (process ${pid}). Stop it with Ctrl-C first.`,
  );

function readRun(file: string): { pid: number; url?: string } {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    // Cut off while it was written, or gone meanwhile.
    return { pid: 0 };
  }
}
