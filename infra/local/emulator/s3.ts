import { createHash, randomUUID } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import type { Reply, Route } from './http.ts';
import { AwsFault, notEmulated } from './service.ts';

export interface S3Options {
  /** One folder a bucket. */
  folder: string;
  /** No other bucket is there. */
  buckets: readonly string[];
}

/** S3's least size of a part that is not the last. bytes */
const smallestPart = 5 * 1024 * 1024;

/** Objects in one piece or in parts, addressed by path. Whole or not at all, as in S3; versions and lists are not modelled. */
export const s3 = ({ folder, buckets }: S3Options): Route => ({
  service: 's3',
  path: /^\/([^/]+)\/(.+)$/,
  maxBodyBytes: 64 * 1024 * 1024,
  async answer(method, [, bucket, encoded], headers, body, query) {
    if (!buckets.includes(bucket!)) throw new AwsFault('NoSuchBucket', 'The bucket does not exist.', 404);
    if (String(headers['content-encoding'] ?? '').includes('aws-chunked'))
      throw notEmulated('s3: aws-chunked bodies');
    checkSum(headers['x-amz-checksum-crc32'], body);
    const key = decodeURIComponent(encoded!);
    const file = join(folder, bucket!, encodeURIComponent(key));
    const upload = query.get('uploadId');
    const parts = (id: string) => join(folder, bucket!, `.upload-${id}`);
    if (method === 'GET' && upload === null) return reply(200, await readObject(file));
    if (method === 'PUT' && upload === null) return stored(await put(file, body));
    if (method === 'POST' && query.has('uploads')) {
      const id = randomUUID();
      await mkdir(parts(id), { recursive: true, mode: 0o700 });
      return xml(`<InitiateMultipartUploadResult><UploadId>${id}</UploadId></InitiateMultipartUploadResult>`);
    }
    if (upload === null || !/^[0-9a-f-]{36}$/.test(upload)) throw notEmulated(`s3:${method} ${query}`);
    const there = await readdir(parts(upload)).catch(() => {
      throw new AwsFault('NoSuchUpload', 'The specified upload does not exist.', 404);
    });
    const number = query.get('partNumber');
    if (method === 'PUT' && number !== null)
      return stored(await put(join(parts(upload), number.padStart(5, '0')), body));
    if (method === 'DELETE') {
      await rm(parts(upload), { recursive: true, force: true });
      return reply(204, '');
    }
    if (method !== 'POST') throw notEmulated(`s3:${method} ${query}`);
    const wanted = [...body.toString('utf8').matchAll(/<PartNumber>(\d+)<\/PartNumber>/g)].map(([, n]) =>
      n!.padStart(5, '0'),
    );
    if (wanted.some((name) => !there.includes(name))) throw new AwsFault('InvalidPart', 'A part is missing.');
    const bytes = await Promise.all(wanted.map((name) => readFile(join(parts(upload), name))));
    if (bytes.slice(0, -1).some(({ length }) => length < smallestPart))
      throw new AwsFault('EntityTooSmall', 'A part that is not the last is smaller than 5 MB.');
    const etag = await put(file, Buffer.concat(bytes));
    await rm(parts(upload), { recursive: true, force: true });
    return xml(`<CompleteMultipartUploadResult><ETag>${etag}</ETag></CompleteMultipartUploadResult>`);
  },
});

async function put(file: string, body: Buffer): Promise<string> {
  await mkdir(join(file, '..'), { recursive: true, mode: 0o700 });
  const unfinished = `${file}.${randomUUID()}`;
  await writeFile(unfinished, body, { mode: 0o600 });
  await rename(unfinished, file);
  return `"${createHash('md5').update(body).digest('hex')}"`;
}

const readObject = (file: string): Promise<Buffer> =>
  readFile(file).catch(() => {
    throw new AwsFault('NoSuchKey', 'The specified key does not exist.', 404);
  });

function checkSum(given: string | string[] | undefined, body: Buffer): void {
  if (given === undefined) return;
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(crc32(body));
  if (sum.toString('base64') !== given) throw new AwsFault('BadDigest', 'The CRC32 is not the body’s.');
}

const reply = (status: number, body: Buffer | string): Reply => ({
  status,
  type: 'application/octet-stream',
  body,
});
const stored = (etag: string): Reply => ({ ...reply(200, ''), headers: { etag } });
const xml = (body: string): Reply => ({ status: 200, type: 'application/xml', body });
