import { z } from 'zod';
import { iamToken } from '../aws/iam-token.ts';
import type { Secrets } from '../aws/secrets.ts';
import { TenantryError } from '../errors.ts';
import type { TenantId } from '../tenant/tenant.ts';

/** RDS's own form of a database secret. A tenant in a shared cluster that uses IAM has no password in it. */
const databaseSecret = z.object({
  engine: z.literal('postgres'),
  host: z.string().min(1),
  port: z.coerce.number().int(),
  dbname: z.string().min(1),
  username: z.string().min(1),
  password: z.string().min(1).optional(),
});
export type DatabaseSecret = z.output<typeof databaseSecret>;

export const loginSecretName = (clusterId: string, login: string) => `tenancy-login/${clusterId}/${login}`;
export const tenantSecretName = (tenant: TenantId) => `mcp-tenant-db/${tenant}`;

export interface Login {
  readonly clusterId: string;
  readonly host: string;
  readonly port: number;
  readonly login: string;
}

/** How logins prove who they are. */
export interface Credentials {
  /** Of shared clusters' logins. */
  readonly use: 'iam' | 'secret';
  /** A shared cluster's login: an IAM token, or what its secret holds. `fresh`: the cached one was refused. */
  password(login: Login, fresh: boolean): Promise<string>;
  /** Where a `database` tenant lives, from its secret. */
  tenantDatabase(tenant: TenantId, fresh: boolean): Promise<DatabaseSecret>;
  token(login: Omit<Login, 'clusterId'>): Promise<string>;
}

export function createCredentials(kind: 'iam' | 'secret', region: string, secrets: Secrets): Credentials {
  const token = (login: Omit<Login, 'clusterId'>) =>
    iamToken({ host: login.host, port: login.port, login: login.login, region });
  return {
    use: kind,
    async password(login, fresh) {
      if (kind === 'iam') return token(login);
      const name = loginSecretName(login.clusterId, login.login);
      const { password } = parseDatabaseSecret(name, await secrets.read(name, fresh));
      if (password === undefined) throw new TenantryError('internal', `The secret ${name} has no password.`);
      return password;
    },
    async tenantDatabase(tenant, fresh) {
      const name = tenantSecretName(tenant);
      return parseDatabaseSecret(name, await secrets.read(name, fresh));
    },
    token,
  };
}

export function parseDatabaseSecret(name: string, text: string): DatabaseSecret {
  try {
    return databaseSecret.parse(JSON.parse(text));
  } catch {
    // Not the parser's message: it may quote the secret.
    throw new TenantryError(
      'internal',
      `The secret ${name} is not in RDS's form {engine, host, port, dbname, username, password}.`,
    );
  }
}
