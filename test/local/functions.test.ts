import { mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { expect, test, vi } from 'vitest';
import { openLogs, watchFunctions } from '../../infra/local/functions.ts';

test('an edited tool or migration is noticed, however an editor saves it, and in a folder that did not exist before too; other files are not', async () => {
  const root = await mkdtemp(join(tmpdir(), 'tenantry-watch-'));
  await mkdir(join(root, 'functions/mcp/tools'), { recursive: true });
  await mkdir(join(root, 'migrations/tenant'), { recursive: true });
  await mkdir(join(root, 'elsewhere'));
  let changes = 0;
  const watcher = watchFunctions(root, () => changes++);
  try {
    await writeFile(join(root, 'functions/mcp/tools/notes.md'), 'not code');
    await writeFile(join(root, 'elsewhere/a.ts'), '');
    await writeFile(join(root, 'functions/mcp/tools/a.ts'), 'export {};');
    await writeFile(join(root, 'functions/mcp/tools/b.ts'), 'export {};');
    await expect.poll(() => changes).toBe(1);
    await mkdir(join(root, 'functions/mcp/tools/more'));
    await writeFile(join(root, 'functions/mcp/tools/more/c.ts'), 'export {};');
    await expect.poll(() => changes).toBeGreaterThan(1);
    const before = changes;
    await writeFile(join(root, 'migrations/tenant/0002-more.sql'), 'select 1');
    await expect.poll(() => changes).toBeGreaterThan(before);
    // As editors save: a new file takes the old one's place, each time.
    for (const file of [
      'functions/mcp/tools/a.ts',
      'migrations/tenant/0002-more.sql',
      'functions/mcp/tools/more/c.ts',
    ])
      for (const text of ['first', 'second', 'third']) {
        const saved = changes;
        await writeFile(join(root, `${file}~`), text);
        await rename(join(root, `${file}~`), join(root, file));
        await expect.poll(() => changes, { message: `${file}, ${text}` }).toBeGreaterThan(saved);
      }
    // A checkout of another branch.
    await rm(join(root, 'functions/mcp/tools/more'), { recursive: true });
    await mkdir(join(root, 'functions/mcp/tools/more'));
    const again = changes;
    await writeFile(join(root, 'functions/mcp/tools/more/d.ts'), 'export {};');
    await expect.poll(() => changes).toBeGreaterThan(again);
    const made = changes;
    await writeFile(join(root, 'functions/mcp/tools/more/d.ts'), 'export const d = 1;');
    await expect.poll(() => changes).toBeGreaterThan(made);
  } finally {
    watcher.close();
    await rm(root, { recursive: true });
  }
});

test('goes on when a log can’t be written, and writes to it again when it can', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'tenantry-logs-'));
  const file = join(folder, 'mcp.log');
  try {
    // Whatever is written there, the disk is full.
    await symlink('/dev/full', file);
    const log = openLogs(folder);
    for (let line = 0; line < 3; line += 1) {
      log('mcp', 'lost\n');
      await setTimeout(20);
    }
    await rm(file);
    await vi.waitFor(async () => {
      log('mcp', 'kept\n');
      expect(await readFile(file, 'utf8')).toContain('kept');
    });
  } finally {
    await rm(folder, { recursive: true });
  }
});
