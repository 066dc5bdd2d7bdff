import { existsSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pathToFileURL } from 'node:url';
import { expect, it } from 'vitest';
import { openStore } from '../../../functions/lib/transfer/store.ts';

it('leaves nothing of a file whose writer was killed, once it is written again', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'tenantry-store-'));
  try {
    for (const left of ['.notes.csv.6f1b4a52', '.other.csv.6f1b4a52'])
      writeFileSync(join(folder, left), 'part');
    await openStore(pathToFileURL(folder).href).write('notes.csv', Readable.from(['whole']));
    expect(readdirSync(folder).sort()).toEqual(['.other.csv.6f1b4a52', 'notes.csv']);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

it('says why a place takes no files, and passes on what keeps them from being read', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'tenantry-store-'));
  try {
    writeFileSync(join(folder, 'file'), '');
    const inFile = openStore(pathToFileURL(join(folder, 'file', 'n1')).href);
    await expect(inFile.write('notes.csv', Readable.from(['whole']))).rejects.toMatchObject({
      code: 'export_refused',
      message: expect.stringMatching(/^notes\.csv can't be written to .*\(ENOTDIR\): make room there, or/),
    });
    symlinkSync('notes.csv', join(folder, 'notes.csv'));
    const store = openStore(pathToFileURL(folder).href);
    await expect(store.read('notes.csv')).rejects.toMatchObject({
      code: 'import_refused',
      message: expect.stringContaining('(ELOOP)'),
    });
    const lost = new Error('the database went away');
    const rows = new Readable({ read: () => rows.destroy(lost) });
    await expect(store.write('other.csv', rows)).rejects.toBe(lost);
    expect(existsSync(join(folder, 'other.csv'))).toBe(false);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
