import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { tools } from '../../functions/mcp/tools/index.ts';
import { startCloud } from '../../infra/local/cloud.ts';

it('says what is wrong with migration files before anything has started', async () => {
  const root = await mkdtemp(join(tmpdir(), 'tenantry-cloud-'));
  try {
    await mkdir(join(root, 'migrations/tenant'), { recursive: true });
    await writeFile(join(root, 'migrations/tenant/add_suppliers.sql'), 'select 1;');
    const folder = join(root, '.tenantry');
    const settings = { folder, port: 1, fresh: false, clockFactor: 1, extensions: [], allowedOrigins: [] };
    const told: string[] = [];
    const started = startCloud(
      settings,
      root,
      tools,
      () => told.push('something has started'),
      (step) => told.push(step),
    );
    await expect(started).rejects.toThrow(/^add_suppliers.sql is not named like `0001-what-it-does.sql`/);
    expect([told, existsSync(folder)]).toEqual([[], false]);
  } finally {
    await rm(root, { recursive: true });
  }
});
