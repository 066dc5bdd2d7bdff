import { randomUUID } from 'node:crypto';
import { constants, createReadStream, createWriteStream } from 'node:fs';
import { mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { openBucket } from '../aws/s3.ts';
import { TenantryError } from '../errors.ts';

/** A folder of files, on disk or in S3-compatible storage. */
export interface Store {
  /** Whole or not at all: a reader never sees a part. */
  write(name: string, bytes: Readable): Promise<void>;
  /** Undefined when there is no such file. */
  read(name: string): Promise<Readable | undefined>;
}

const schemes = ['file', 's3'] as const;
type Scheme = (typeof schemes)[number];

/** @throws TenantryError `invalid_request` when it is no address that may be used here */
export function transferUrl(text: string, allowed: readonly Scheme[]): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const scheme = schemes.find((scheme) => url?.protocol === `${scheme}:`);
  if (url === undefined || scheme === undefined || !allowed.includes(scheme))
    throw invalid(`An address here begins with ${allowed.map((scheme) => `${scheme}://`).join(' or ')}.`);
  if (scheme === 'file' && url.host !== '')
    throw invalid('A file address has three slashes: file:///folder.');
  if (scheme === 's3' && !/^[a-z0-9][a-z0-9.-]{2,62}$/.test(url.host))
    throw invalid('An address in S3 names its bucket: s3://bucket/folder.');
  if (url.search !== '' || url.hash !== '' || url.username !== '')
    throw invalid('An address is a folder, without a query.');
  if (!isReadable(url))
    throw invalid('In an address `%` begins a byte of a UTF-8 text (`%25` is itself), and no NUL or `/`.');
  return url;
}

/** As a step will read it, which has nobody to tell. */
function isReadable(url: URL): boolean {
  try {
    return !pathOf(url).includes('\0');
  } catch {
    return false;
  }
}

const pathOf = (url: URL) => (url.protocol === 's3:' ? decodeURIComponent(url.pathname) : fileURLToPath(url));

export function openStore(address: string): Store {
  const url = new URL(address);
  return url.protocol === 's3:' ? openBucket(url.host, pathOf(url)) : openFolder(pathOf(url));
}

function openFolder(folder: string): Store {
  return {
    async write(name, bytes) {
      const unfinished = join(folder, `.${name}.${randomUUID()}`);
      try {
        await mkdir(folder, { recursive: true, mode: 0o700 });
        // What a killed process has left of it.
        for (const left of await readdir(folder))
          if (left.startsWith(`.${name}.`)) await rm(join(folder, left), { force: true });
        await pipeline(bytes, createWriteStream(unfinished, { mode: 0o600, flush: true }));
        await rename(unfinished, join(folder, name));
      } catch (cause) {
        await rm(unfinished, { force: true }).catch(() => {});
        // What was to be written could not be read: that is not the folder's failure.
        if (bytes.errored === cause) throw cause;
        throw new TenantryError(
          'export_refused',
          `${name} can't be written to ${folder} (${codeOf(cause)}): make room there, or choose a place that takes files.`,
          { cause },
        );
      }
    },
    async read(name) {
      try {
        // A pipe would be waited for until somebody writes to it; a link leads to files of others.
        const flags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW;
        const file = await open(join(folder, name), flags);
        if ((await file.stat()).isFile()) return createReadStream('', { fd: file });
        await file.close();
        throw new TenantryError('import_refused', `${name} is there, but it is no file.`);
      } catch (cause) {
        if (cause instanceof TenantryError) throw cause;
        if (['ENOENT', 'ENOTDIR'].includes(codeOf(cause))) return undefined;
        if (codeOf(cause) === 'ELOOP')
          throw new TenantryError(
            'import_refused',
            `${name} is a link (ELOOP): put the file itself into ${folder}.`,
            { cause },
          );
        throw new TenantryError('import_refused', `${name} can't be read in ${folder} (${codeOf(cause)}).`, {
          cause,
        });
      }
    },
  };
}

const codeOf = (error: unknown) => String((error as NodeJS.ErrnoException).code);

const invalid = (message: string) => new TenantryError('invalid_request', message);
