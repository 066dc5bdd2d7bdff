import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { TenantryError } from '../errors.ts';
import { splitStatements } from './split-statements.ts';

export interface MigrationFile {
  /** `0001-inventory.sql`; files run in the order of their numbers. */
  readonly name: string;
  readonly sql: string;
  /** SHA-256 of the text, hex: an applied file may not change. */
  readonly checksum: string;
}

const fileName = /^(\d{4})-[a-z0-9]+(-[a-z0-9]+)*\.sql$/;

/** Statements that would leave the migrator's transaction, or its role. */
const leaves =
  /^(begin|start|commit|end|rollback|abort|savepoint|release|prepare|set\s+(local\s+|session\s+)?(role|session\s+authorization|transaction)|reset\s+(role|all|session)|discard|copy|vacuum|create\s+database|drop\s+database)\b/i;

/**
 * Reads a folder of plain, numbered SQL files.
 * @throws TenantryError `migration_refused` that names the file and the remedy
 */
export async function readMigrations(folder: URL): Promise<MigrationFile[]> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.sql')).sort();
  return inOrder(
    await Promise.all(
      names.map(async (name) => parseMigration(name, await readFile(new URL(name, folder), 'utf8'))),
    ),
  );
}

export function parseMigration(name: string, sql: string): MigrationFile {
  if (!fileName.test(name)) throw refused(name, 'is not named like `0001-what-it-does.sql`', 'rename it');
  for (const statement of splitStatements(sql)) {
    const verb = leaves.exec(statement)?.[0];
    if (verb !== undefined)
      throw refused(
        name,
        `contains \`${verb.toLowerCase()}\``,
        'leave transactions and roles to the migrator',
      );
  }
  return { name, sql, checksum: createHash('sha256').update(sql).digest('hex') };
}

/** @throws TenantryError `migration_refused` when two have one number, or one is out of order */
export function inOrder(files: readonly MigrationFile[]): MigrationFile[] {
  for (const [index, file] of files.entries()) {
    const previous = files[index - 1];
    if (previous && previous.name.slice(0, 4) >= file.name.slice(0, 4))
      throw refused(
        file.name,
        `does not come after ${previous.name}`,
        'give it the next free number, from 0001',
      );
  }
  return [...files];
}

export function refused(file: string, what: string, remedy: string, cause?: unknown): TenantryError {
  return new TenantryError('migration_refused', `${file} ${what}: ${remedy}.`, { cause });
}
