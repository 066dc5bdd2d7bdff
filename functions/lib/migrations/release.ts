import { createHash } from 'node:crypto';
import type { MigrationFile } from './migration-file.ts';

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
