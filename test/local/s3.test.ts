import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { openStore } from '../../functions/lib/transfer/store.ts';
import { type AwsEmulator, startAwsEmulator } from '../../infra/local/emulator/server.ts';

/** What the product asks of S3, by the unchanged client. */
let emulator: AwsEmulator;
let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'tenantry-s3-'));
  emulator = await startAwsEmulator({ s3: { folder, buckets: ['exports-here'] } });
  const environment = { AWS_REGION: 'eu-west-1', AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' };
  Object.assign(process.env, { AWS_ENDPOINT_URL: emulator.url, ...environment });
});
afterAll(async () => {
  await emulator.close();
  rmSync(folder, { recursive: true, force: true });
});

const store = () => openStore('s3://exports-here/some/folder ä');

it('keeps what is small in one piece, what is large in parts, byte for byte', async () => {
  const small = Buffer.from('a,b\nä€😀,\n');
  const large = Buffer.alloc(40 * 1024 * 1024 + 7, 'ä€😀 line\n');
  await store().write('small.csv', Readable.from([small]));
  // In pieces that end in the middle of a character.
  const pieces = function* () {
    for (let at = 0; at < large.length; at += 65_537) yield large.subarray(at, at + 65_537);
  };
  await store().write('large.csv', Readable.from(pieces()));
  expect(await buffer((await store().read('small.csv'))!)).toEqual(small);
  expect((await buffer((await store().read('large.csv'))!)).equals(large)).toBe(true);
  await store().write('small.csv', Readable.from(['new']));
  expect((await buffer((await store().read('small.csv'))!)).toString()).toBe('new');
});

it('has nothing of a write that failed, and says what is not there', async () => {
  const broken = async function* () {
    yield Buffer.alloc(20 * 1024 * 1024);
    throw new Error('cut off');
  };
  await expect(store().write('broken.csv', Readable.from(broken()))).rejects.toThrow('cut off');
  expect(await store().read('broken.csv')).toBeUndefined();
  expect(readdirSync(join(folder, 'exports-here')).filter((name) => name.startsWith('.upload'))).toEqual([]);
  await expect(openStore('s3://somebody-elses').read('a.csv')).rejects.toMatchObject({
    message: expect.stringContaining('NoSuchBucket'),
  });
});
