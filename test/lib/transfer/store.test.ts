import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
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
