import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Adapter, AdapterFactory, AdapterPayload } from 'oidc-provider';

interface Entry {
  payload: AdapterPayload;
  /** Unix time, ms. */
  expires: number | null;
}

/**
 * Registered clients, grants and refresh tokens in one file, so that a client that has logged in once need not do so
 * again after a restart. One process, a handful of entries: every change is written at once.
 */
export function issuerStore(file: string): AdapterFactory {
  const entries = new Map<string, Entry>(existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : []);

  function live(): [string, Entry][] {
    for (const [key, { expires }] of entries)
      if (expires !== null && expires <= Date.now()) entries.delete(key);
    return [...entries];
  }
  const find = (key: string) => live().find(([candidate]) => candidate === key)?.[1].payload;
  const save = () => writePrivately(file, live());

  return (model): Adapter => ({
    async upsert(id, payload, seconds) {
      entries.set(`${model}:${id}`, { payload, expires: seconds ? Date.now() + seconds * 1000 : null });
      save();
    },
    find: async (id) => find(`${model}:${id}`),
    findByUid: async (uid) =>
      live().find(([key, { payload }]) => key.startsWith(`${model}:`) && payload.uid === uid)?.[1].payload,
    // Of the device flow, which is off.
    findByUserCode: async () => undefined,
    async consume(id) {
      const payload = find(`${model}:${id}`);
      if (payload) payload.consumed = Math.floor(Date.now() / 1000);
      save();
    },
    async destroy(id) {
      entries.delete(`${model}:${id}`);
      save();
    },
    async revokeByGrantId(grantId) {
      for (const [key, { payload }] of entries) if (payload.grantId === grantId) entries.delete(key);
      save();
    },
  });
}

/** For keys and tokens: readable by their owner alone, and never half written. */
export function writePrivately(file: string, value: unknown): void {
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  writeFileSync(`${file}.new`, JSON.stringify(value), { mode: 0o600 });
  renameSync(`${file}.new`, file);
}
