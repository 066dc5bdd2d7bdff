import { type ChildProcess, spawn } from 'node:child_process';
import { chownSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../../infra/local/ports.ts';

const program = '/usr/sbin/pgbouncer';

/** PgBouncer comes from the system's packages (`apt-get install pgbouncer`); it stands in for RDS Proxy. */
export const pgbouncerIsInstalled = existsSync(program);

/** It refuses to run as root. */
const unprivileged = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};

export interface Pgbouncer {
  readonly host: '127.0.0.1';
  readonly port: number;
  close(): Promise<void>;
}

/** A pooler in transaction mode before a server, for the given logins; at most `serverConnections` in all to each database. */
export async function startPgbouncer(options: {
  server: { host: string; port: number };
  /** Password by login. */
  logins: Readonly<Record<string, string>>;
  serverConnections: number;
}): Promise<Pgbouncer> {
  if (!pgbouncerIsInstalled) throw new Error('PgBouncer is not installed: apt-get install pgbouncer');
  const folder = mkdtempSync(join(tmpdir(), 'tenantry-pgbouncer-'));
  const port = await freePort();
  const write = (name: string, text: string) => {
    const path = join(folder, name);
    writeFileSync(path, text, { mode: 0o600 });
    if (unprivileged.uid !== undefined) chownSync(path, unprivileged.uid, unprivileged.gid);
    return path;
  };
  const users = Object.entries(options.logins).map(([login, password]) => `"${login}" "${password}"\n`);
  const ini = write(
    'pgbouncer.ini',
    `[databases]
* = host=${options.server.host} port=${options.server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
pool_mode = transaction
default_pool_size = ${options.serverConnections}
max_db_connections = ${options.serverConnections}
max_client_conn = 2000
auth_type = scram-sha-256
auth_file = ${write('users.txt', users.join(''))}
ignore_startup_parameters = extra_float_digits
logfile = ${write('log.txt', '')}
`,
  );
  if (unprivileged.uid !== undefined) chownSync(folder, unprivileged.uid, unprivileged.gid);
  const child = spawn(program, ['-q', ini], { ...unprivileged, stdio: 'ignore' });
  await accepts(child, port);
  return {
    host: '127.0.0.1',
    port,
    async close() {
      const gone = new Promise((resolve) => child.once('exit', resolve));
      if (child.exitCode === null && child.kill('SIGKILL')) await gone;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function accepts(child: ChildProcess, port: number): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt += 1) {
    if (child.exitCode !== null) break;
    const open = await new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1', () => resolve(true)).once('error', () => resolve(false));
      socket.once('connect', () => socket.destroy());
    });
    if (open) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error('PgBouncer did not start.');
}
