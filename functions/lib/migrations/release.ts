import { createHash } from 'node:crypto';
import type { MasterKeys } from '../isolation/context.ts';
import { runtimeMigrations } from './install.ts';
import type { MigrationFile } from './migration-file.ts';

const migrations = new URL('../../../migrations/', import.meta.url);

/** The migrations that this deployment brings. */
export interface Release {
  /** The schema `tenancy`. */
  readonly runtime: readonly MigrationFile[];
  /** A home's: the product's own, then the adopting team's. */
  readonly home: readonly MigrationFile[];
  /** What its files build on. */
  readonly extensions: readonly string[];
  /** Ids of the keys that contexts are signed with: a database learns of another one by a run, as of a new runtime. */
  readonly keys: readonly string[];
}

/** What a home consists of: the product's own table, then the adopting team's. @throws as `readMigrations` */
export async function homeMigrations(): Promise<MigrationFile[]> {
  const { inOrder, readMigrations } = await import('./migration-file.ts');
  const own = await readMigrations(new URL('home/', migrations), 'product');
  return inOrder([...own, ...(await readMigrations(new URL('tenant/', migrations)))]);
}

/** What this deployment brings to every database and home. */
export const readRelease = async ({
  extensions,
  keys: { keys },
}: {
  readonly extensions: readonly string[];
  readonly keys: MasterKeys;
}): Promise<Release> => ({
  runtime: await runtimeMigrations(),
  home: await homeMigrations(),
  extensions: [...extensions].sort(),
  keys: [...keys.keys()].sort(),
});

/** A state that a home can be in: a version, for people, and the digest of everything behind it. */
export interface SchemaState {
  readonly version: string;
  readonly digest: string;
}

/** `0001-inventory.sql` makes the version `0001-inventory`. */
export const versionNamed = (file: string) => file.replace(/\.sql$/, '');

/** What a home that has these files, and no others, is recorded with. */
export function versionOf(files: readonly MigrationFile[]): string | null {
  const last = files.at(-1);
  return last === undefined ? null : versionNamed(last.name);
}

/** Every state that a home of this release can be at, the newest last. */
export function schemaStates({ runtime, home, extensions, keys }: Release): SchemaState[] {
  return home.map((_, index) => {
    const files = home.slice(0, index + 1);
    const lines = [...runtime, ...files].map(({ name, checksum }) => `${name} ${checksum}\n`);
    lines.push(...extensions.map((name) => `extension ${name}\n`), ...keys.map((id) => `key ${id}\n`));
    return {
      version: versionOf(files)!,
      digest: createHash('sha256').update(lines.join('')).digest('hex'),
    };
  });
}

export const newestState = (release: Release): SchemaState => schemaStates(release).at(-1)!;

/** The files of a version; undefined: the release has no such one. `0003` names `0003-what-it-does` too. */
export function filesUpTo({ home }: Release, version: string): readonly MigrationFile[] | undefined {
  const index = home.findIndex(({ name }) => name === `${version}.sql` || name.slice(0, 4) === version);
  return index < 0 ? undefined : home.slice(0, index + 1);
}
