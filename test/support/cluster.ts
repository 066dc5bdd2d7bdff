import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Endpoint } from '../../functions/lib/database/types.ts';
import { makeMaster } from '../../infra/local/emulator/rds-master.ts';
import { stablePort } from '../../infra/local/ports.ts';
import { type PostgresServer, postgresBase, startPostgres } from '../../infra/local/postgres.ts';

/** One folder for all test clusters: they share the binaries and the result of `initdb`. */
export function testBase(): string {
  const base = join(tmpdir(), `tenantry-test-${process.getuid?.() ?? 0}`);
  mkdirSync(base, { recursive: true, mode: 0o755 });
  return postgresBase(base);
}

const anHour = 3_600_000;

/** Removes what runs that were killed have left: a cluster takes some 60 MB. */
export function sweepClusters(): void {
  const clusters = join(testBase(), 'clusters');
  if (!existsSync(clusters)) return;
  for (const name of readdirSync(clusters)) {
    const folder = join(clusters, name);
    // Another run may be making it at this moment: a copy, whose own times are those of what was copied but for this one.
    const { ctimeMs } = statSync(folder, { throwIfNoEntry: false }) ?? { ctimeMs: 0 };
    if (Date.now() - ctimeMs < anHour || isServed(folder)) continue;
    rmSync(folder, { recursive: true, force: true });
  }
}

function isServed(folder: string): boolean {
  try {
    process.kill(Number.parseInt(readFileSync(join(folder, 'postmaster.pid'), 'utf8'), 10), 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

export interface TestCluster {
  readonly server: PostgresServer;
  /** With the rights of RDS's master. */
  readonly master: Endpoint;
  /** Its folder. */
  readonly data: string;
  /** None of its processes gets another word in, as when its machine fails. */
  kill(): Promise<void>;
  /** Starts it again, on the same port, after `server.stop()` or `kill()`. */
  restart(): Promise<void>;
  close(): Promise<void>;
}

/** Neither what a crash of the machine would lose is tried, nor how long a password takes to guess. */
export const quick = { fsync: 'off', scram_iterations: '1' };

/** A PostgreSQL server of the test's own, removed by `close`. `from`: the data of one that was stopped, which it has a copy of. */
export async function startCluster(
  parameters: Record<string, string> = {},
  from?: string,
): Promise<TestCluster> {
  const base = testBase();
  const name = randomUUID();
  // One that it gets back when it is started again: nothing of another test sits on it meanwhile.
  const port = await stablePort([]);
  const start = () => startPostgres({ base, name, port, parameters: { ...quick, ...parameters } });
  const data = join(base, 'clusters', name);
  if (from !== undefined) await promisify(execFile)('cp', ['-a', from, data]);
  let server = await start();
  if (from === undefined) await makeMaster(server, 'master', 'master', undefined);
  const { host } = server;
  return {
    get server() {
      return server;
    },
    master: endpoint({ host, port, database: 'postgres', login: 'master' }, 'master'),
    data,
    async kill() {
      const pids = [server.pid, ...childrenOf(server.pid)];
      for (const pid of pids)
        try {
          process.kill(pid, 'SIGKILL');
        } catch {
          // It has ended by itself.
        }
      await server.exited;
    },
    async restart() {
      for (;;)
        try {
          server = await start();
          return;
        } catch (error) {
          // Of a server that was killed some process is still going.
          if (!(error as Error).message.includes('shared memory block')) throw error;
          await sleep(20);
        }
    },
    async close() {
      await server.stop('immediate');
      rmSync(data, { recursive: true, force: true });
    },
  };
}

/** Where the kernel does not tell them, they end by themselves soon after their postmaster. */
function childrenOf(pid: number): number[] {
  const file = `/proc/${pid}/task/${pid}/children`;
  return existsSync(file) ? readFileSync(file, 'utf8').split(' ').filter(Boolean).map(Number) : [];
}

export function endpoint(
  at: Pick<Endpoint, 'host' | 'port' | 'database' | 'login'>,
  password: string,
): Endpoint {
  return { ...at, tls: 'off', password: async () => password };
}
