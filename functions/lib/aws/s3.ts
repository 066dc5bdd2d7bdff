import type { Readable } from 'node:stream';
import type { S3Client } from '@aws-sdk/client-s3';
import { awsFailure } from './failure.ts';

/** A folder of a bucket. */
export interface Bucket {
  /** In parts, so that nothing is held whole; an object is there when its last part is. */
  write(name: string, bytes: Readable): Promise<void>;
  read(name: string): Promise<Readable | undefined>;
}

let loaded:
  | Promise<{
      sdk: typeof import('@aws-sdk/client-s3');
      storage: typeof import('@aws-sdk/lib-storage');
      client: S3Client;
    }>
  | undefined;

const load = () => {
  loaded ??= Promise.all([import('@aws-sdk/client-s3'), import('@aws-sdk/lib-storage')]).then(
    ([sdk, storage]) => ({ sdk, storage, client: new sdk.S3Client({ maxAttempts: 5 }) }),
  );
  return loaded;
};

/** S3 has room for 10,000 parts: with these, for 160 GB in one object. bytes */
const partSize = 16 * 1024 * 1024;

export function openBucket(bucket: string, folder: string): Bucket {
  const key = (name: string) => [...folder.split('/').filter((part) => part !== ''), name].join('/');
  return {
    async write(name, bytes) {
      const { storage, client } = await load();
      const params = { Bucket: bucket, Key: key(name), Body: bytes };
      await new storage.Upload({ client, params, partSize, queueSize: 2 }).done().catch((error) => {
        // What was to be written could not be read: that is not S3's failure.
        throw bytes.errored === error ? error : awsFailure('S3', error);
      });
    },
    async read(name) {
      const { sdk, client } = await load();
      try {
        const { Body } = await client.send(new sdk.GetObjectCommand({ Bucket: bucket, Key: key(name) }));
        return Body as Readable;
      } catch (error) {
        if (error instanceof sdk.NoSuchKey) return undefined;
        throw awsFailure('S3', error);
      }
    },
  };
}
