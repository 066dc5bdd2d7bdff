import { chmodSync, existsSync, readFileSync } from 'node:fs';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';

export interface StateFile<T> {
  readonly value: T;
  /** Resolves when the value as it is now is on disk; concurrent calls share one write. */
  save(): Promise<void>;
}

/** Keeps `value` in a JSON file that only its owner may read. Without a path it lives in memory alone. */
export function openStateFile<T>(path: string | undefined, empty: T): StateFile<T> {
  if (path === undefined) return { value: empty, save: async () => {} };
  const value = existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as T) : empty;
  if (existsSync(path)) chmodSync(path, 0o600);
  let writing: Promise<void> = Promise.resolve();
  let queued: Promise<void> | undefined;
  const write = async () => {
    queued = undefined;
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await writeFile(`${path}.new`, JSON.stringify(value), { mode: 0o600 });
    // Whole or not at all: a crash leaves the last state.
    await rename(`${path}.new`, path);
  };
  return {
    value,
    save: () => {
      queued ??= writing = writing.catch(() => {}).then(write);
      return queued;
    },
  };
}
