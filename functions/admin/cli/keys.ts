import type { Command } from 'commander';
import type { KeyView } from '../../lib/admin/keys.ts';
import { moment } from '../../lib/admin/moment.ts';
import type { TenantView } from '../../lib/admin/tenants.ts';
import { type AdminClient, CommandFailure } from './connection.ts';
import { list, wholeNumber } from './options.ts';
import { type Output, table } from './output.ts';
import { tenantPath } from './tenants.ts';

export function keyCommands(program: Command, client: AdminClient, output: () => Output): void {
  program
    .command('token <slug>')
    .description('an access token of the local issuer for a tenant, good for an hour')
    .option('--scopes <scopes>', 'what it may, comma-separated; all by default', list)
    .action(async (slug: string, { scopes = [] }) => {
      if (client.isDeployed)
        throw new CommandFailure(
          3,
          'not_local',
          `A deployment’s tokens are its identity provider’s. For a key of the product’s own: npm run tenants -- keys create ${slug} --scopes …`,
        );
      const { body: tenant } = await client.get<TenantView>(tenantPath(slug));
      const { body } = await client.post<{ token: string }>('/local/token', { tenant: tenant.id, scopes });
      output().answer(body, body.token);
    });

  const keys = program.command('keys').description('API keys of a tenant');

  keys
    .command('create <slug>')
    .description('mint a key; its token is shown this once')
    .requiredOption('--scopes <scopes>', 'what it may, comma-separated', list)
    .option('--name <name>', 'to tell it from others', 'agent')
    .option('--days <days>', 'until it expires', wholeNumber, 365)
    .option('--idempotency-key <key>', 'the same key and request: the same API key')
    .action(async (slug: string, { idempotencyKey, ...body }) => {
      const path = tenantPath(slug, '/keys');
      const { body: key } = await client.post<KeyView & { token: string }>(path, body, idempotencyKey);
      output().answer(key, key.token);
      output().note(
        `Key ${key.id} of ${slug}: ${key.scopes.join(', ')}, until ${moment(key.expiresAt)}. It is shown this once.`,
      );
    });

  keys
    .command('list <slug>')
    .description('its keys; never their tokens')
    .action(async (slug: string) => {
      const { body } = await client.get<{ keys: KeyView[] }>(tenantPath(slug, '/keys'));
      const rows = body.keys.map(({ id, name, scopes, expiresAt, revokedAt }) => [
        id,
        name,
        scopes.join(' '),
        moment(expiresAt),
        moment(revokedAt),
      ]);
      output().answer(body.keys, table(['key', 'name', 'scopes', 'expires', 'revoked'], rows));
    });

  keys
    .command('revoke <slug> <key>')
    .description('refuse a key everywhere within 30 s')
    .action(async (slug: string, id: string) => {
      const path = tenantPath(slug, `/keys/${encodeURIComponent(id)}/revoke`);
      const { body } = await client.post<KeyView>(path, {});
      output().answer(body, `Key ${id} is revoked.`);
    });
}
