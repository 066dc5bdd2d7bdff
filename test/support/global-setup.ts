import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { preparePostgres } from '../../infra/local/postgres.ts';
import { sweepClusters, testBase } from './cluster.ts';

/** `initdb` once, before several test files start clusters at the same time, and one folder for what they share: a world, and all that is synthesized. */
export default async function setup(): Promise<() => void> {
  const folder = mkdtempSync(join(tmpdir(), 'tenantry-run-'));
  // Inherited by the workers, which are ended without a word.
  process.env.TENANTRY_RUN = folder;
  // Most of what so many processes do until they are up is to compile the same modules.
  process.env.NODE_COMPILE_CACHE = fileURLToPath(
    new URL('../../node_modules/.cache/tenantry', import.meta.url),
  );
  sweepClusters();
  await preparePostgres(testBase());
  return () => rmSync(folder, { recursive: true, force: true });
}
