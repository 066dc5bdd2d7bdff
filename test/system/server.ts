import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { chmodSync, chownSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { withConnection } from '../../functions/lib/database/connect.ts';
import { makeMaster } from '../../infra/local/emulator/rds-master.ts';
import { startPostgres } from '../../infra/local/postgres.ts';
import { testBase } from '../support/cluster.ts';

/**
 * The shared cluster as RDS has it where that matters to a deployment: TLS only, with a certificate of an authority of
 * its own; logins that may use IAM need no password here (nobody checks tokens), and have none.
 */
export async function startServer(masterLogin: string) {
  const base = testBase();
  const name = randomUUID();
  const data = join(base, 'clusters', name);
  const authority = makeCertificates();
  const first = await startPostgres({ base, name, parameters: { fsync: 'off' } });
  await makeMaster(first, masterLogin, 'the-master', undefined);
  await first.stop();
  const owner = process.getuid?.() === 0 ? 65_534 : undefined;
  if (owner !== undefined) {
    chmodSync(authority, 0o711);
    chownSync(join(authority, 'server.key'), owner, owner);
  }
  chmodSync(join(authority, 'server.key'), 0o600);
  chmodSync(join(authority, 'server.crt'), 0o644);
  for (const file of ['server.crt', 'server.key']) {
    writeFileSync(join(data, file), readFileSync(join(authority, file)), { mode: 0o600 });
    if (owner !== undefined) chownSync(join(data, file), owner, owner);
  }
  const logins = 'tenancy_provisioner,tenancy_app,tenancy_catalog_reader,/^t_';
  const admit = (master: string) =>
    writeFileSync(
      join(data, 'pg_hba.conf'),
      [
        'host all postgres 127.0.0.1/32 scram-sha-256',
        `hostssl all ${masterLogin} 127.0.0.1/32 ${master}`,
        `hostssl all ${logins} 127.0.0.1/32 trust`,
        'hostssl all +rds_iam 127.0.0.1/32 reject',
        'hostssl all all 127.0.0.1/32 scram-sha-256',
      ].join('\n'),
    );
  admit('scram-sha-256');
  const server = await startPostgres({
    base,
    name,
    port: first.port,
    parameters: {
      fsync: 'off',
      ssl: 'on',
      ssl_cert_file: 'server.crt',
      ssl_key_file: 'server.key',
      // As the settings' defaults have it, which the canary compares.
      max_connections: '1000',
    },
  });
  const ask = (database: string, sql: string, port = server.port) =>
    withConnection(
      {
        host: server.host,
        port,
        database,
        login: 'postgres',
        password: async () => server.superuserPassword,
        tls: 'off',
      },
      async (connection) => (await connection.query(sql)).rows,
    );
  return {
    port: server.port,
    /** The same for servers that are made later. */
    parameters: {
      fsync: 'off',
      ssl: 'on',
      ssl_cert_file: join(authority, 'server.crt'),
      ssl_key_file: join(authority, 'server.key'),
      max_connections: '60',
    },
    masterPassword: 'the-master',
    /** What NODE_EXTRA_CA_CERTS names. */
    authorityFile: join(authority, 'ca.crt'),
    /** From the moment on at which it has made a login that uses IAM: it is that login's member. */
    async refuseMaster() {
      admit('reject');
      await ask('postgres', 'select pg_reload_conf()');
    },
    /** As the superuser that RDS keeps for itself. */
    ask,
    /** As a function connects: over TLS, and without a password. */
    async askAs(login: string, database: string, sql: string): Promise<Record<string, unknown>> {
      const ssl = { ca: readFileSync(join(authority, 'ca.crt'), 'utf8') };
      const client = new pg.Client({ host: '127.0.0.1', port: server.port, user: login, database, ssl });
      await client.connect();
      try {
        return (await client.query(sql)).rows[0];
      } finally {
        await client.end();
      }
    },
    async close() {
      await server.stop('immediate');
      rmSync(data, { recursive: true, force: true });
      rmSync(authority, { recursive: true, force: true });
    },
  };
}

/**
 * A dedicated instance's rules: over TLS, whoever may use IAM by a token (which nobody checks here) and by nothing else,
 * everybody else by a password.
 */
export function admitAsRds(data: string): void {
  const rules = [
    'host all postgres 127.0.0.1/32 scram-sha-256',
    'hostssl all +rds_iam 127.0.0.1/32 trust',
    'hostssl all all 127.0.0.1/32 scram-sha-256',
  ];
  writeFileSync(join(data, 'pg_hba.conf'), `${rules.join('\n')}\n`);
}

/** An authority, and a certificate of 127.0.0.1 that it has signed. */
function makeCertificates(): string {
  const folder = mkdtempSync(join(tmpdir(), 'tenantry-ca-'));
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl('req', '-x509', ...key, '-keyout', 'ca.key', '-out', 'ca.crt', '-subj', '/CN=test', '-days', '2');
  openssl('req', ...key, '-keyout', 'server.key', '-out', 'server.csr', '-subj', '/CN=127.0.0.1');
  writeFileSync(join(folder, 'san'), 'subjectAltName=IP:127.0.0.1');
  const by = ['-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial', '-extfile', 'san', '-days', '2'];
  openssl('x509', '-req', '-in', 'server.csr', ...by, '-out', 'server.crt');
  return folder;
}
