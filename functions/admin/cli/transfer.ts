import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Command } from 'commander';
import type { OperationWithSteps } from '../../lib/admin/operations.ts';
import type { AdminClient } from './connection.ts';
import { followOperation, requireDone } from './follow.ts';
import { type Output, table } from './output.ts';
import { tenantPath } from './tenants.ts';

export function transferCommands(program: Command, client: AdminClient, output: () => Output): void {
  const run = async (path: string, body: object, idempotencyKey: string | undefined, wait = true) => {
    const { operation } = (await client.post<{ operation: OperationWithSteps }>(path, body, idempotencyKey))
      .body;
    const ended =
      wait && operation.state === 'running'
        ? await followOperation(client, output(), operation.id)
        : operation;
    output().answer(ended, rowsTable(ended));
    requireDone(ended);
    if (ended.state === 'running')
      output().note(
        `It is on its way: npm run tenants -- operations ${ended.id}; to end it: operations cancel ${ended.id}`,
      );
  };

  program
    .command('export <slug>')
    .description('write all rows of a tenant to a folder or to S3')
    .requiredOption(
      '--to <place>',
      'a folder, file:///folder or s3://bucket/folder; each export makes one of its own there, and says which',
      placeOf,
    )
    .option('--idempotency-key <key>', 'the same key and request: the same answer')
    .option('--wait', 'until it has ended, as without it')
    .option('--no-wait', 'return when it has begun')
    .action((slug: string, { to, idempotencyKey, wait }) =>
      run(tenantPath(slug, '/export'), { to }, idempotencyKey, wait),
    );

  program
    .command('import <slug>')
    .description('take the rows of an export, or of files in its form: all of them, or none')
    .requiredOption('--from <place>', 'a folder, file:///folder or s3://bucket/folder', placeOf)
    .option('--other-tenant', 'the rows were another tenant’s and shall be this one’s')
    .option('--idempotency-key <key>', 'the same key and request: the same answer')
    .option('--wait', 'until it has ended, as without it')
    .option('--no-wait', 'return when it has begun')
    .action((slug: string, { from, otherTenant, idempotencyKey, wait }) =>
      run(tenantPath(slug, '/import'), { from, ...(otherTenant && { otherTenant }) }, idempotencyKey, wait),
    );
}

/** A path of this machine is one where the local cloud runs, too. */
export const placeOf = (text: string): string =>
  /^\w+:\/\//.test(text) ? text : pathToFileURL(resolve(text)).href;

function rowsTable({ state, result }: OperationWithSteps): string {
  const {
    url = '',
    tables,
    rows,
  } = result as {
    url?: string;
    tables?: { table: string; rows: number; sha256: string }[];
    rows?: Record<string, number>;
  };
  const head = `${state}  ${url}`.trimEnd();
  if (tables !== undefined) {
    const lines = tables.map(({ table, rows, sha256 }) => [table, String(rows), sha256.slice(0, 12)]);
    return `${head}\n${table(['table', 'rows', 'sha-256'], lines)}`;
  }
  const lines = Object.entries(rows ?? {}).map(([table, count]) => [table, String(count)]);
  return lines.length === 0 ? head : `${head}\n${table(['table', 'rows'], lines)}`;
}
