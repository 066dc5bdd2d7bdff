import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';

/** Paths for what a file's tests write, each another one, below a folder that goes with their end. */
export function folders(name: string): () => string {
  const base = mkdtempSync(join(tmpdir(), `tenantry-${name}-`));
  afterAll(() => rmSync(base, { recursive: true, force: true }));
  let number = 0;
  return () => join(base, `n${++number}`);
}
