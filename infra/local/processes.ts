import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';

/** The command line of a running process; undefined when there is none. A pid alone may be another program's by now. */
export function commandLine(pid: number): string | undefined {
  try {
    // A zombie has an empty command line, and is as good as gone.
    if (process.platform === 'linux') {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim() || undefined;
    }
    return execFileSync('ps', ['-o', 'args=', '-p', String(pid)], { encoding: 'utf8' }).trim() || undefined;
  } catch {
    return undefined;
  }
}

/**
 * Stops the PostgreSQL servers that a killed run left behind: those whose own pid file names them, and whose
 * command line says that they serve the folder it lies in.
 * @returns how many there were
 */
export async function endOrphans(postgresBase: string): Promise<number> {
  const clusters = join(postgresBase, 'clusters');
  const folders = existsSync(clusters) ? readdirSync(clusters) : [];
  const ended = await Promise.all(folders.map((name) => endOrphan(join(clusters, name))));
  return ended.filter(Boolean).length;
}

async function endOrphan(data: string): Promise<boolean> {
  const file = join(data, 'postmaster.pid');
  if (!existsSync(file)) return false;
  const pid = Number(readFileSync(file, 'utf8').split('\n')[0]);
  const ours = () => commandLine(pid)?.includes(` -D ${data} `);
  if (!Number.isInteger(pid) || pid <= 1 || !ours()) return false;
  // Fast, then, for one that hangs, immediate: its next start recovers from the log.
  for (const signal of ['SIGINT', 'SIGQUIT'] as const) {
    process.kill(pid, signal);
    for (let waited = 0; waited < 5_000; waited += 20) {
      if (!ours()) return true;
      await setTimeout(20);
    }
  }
  throw new Error(`PostgreSQL (process ${pid}) of an earlier run does not stop: end it and try again.`);
}
