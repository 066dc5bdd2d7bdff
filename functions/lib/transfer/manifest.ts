import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { z } from 'zod';
import { TenantryError } from '../errors.ts';
import type { Store } from './store.ts';

export const manifestFile = 'manifest.json';

const name = z.string().regex(/^[a-z_][a-z0-9_]{0,62}$/);

const table = z.strictObject({
  table: name,
  /** In the file's order. Without tenant_id the rows become the importing tenant's. */
  columns: z.array(name).min(1),
  /** Beside the manifest: CSV as PostgreSQL's COPY writes it, with a header; an empty field is null, `""` an empty text. */
  file: z.string().regex(/^[a-z_][a-z0-9_]{0,62}(\.\d{1,6})?\.csv$/),
  rows: z.int().min(0),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  /** Tables with the same number were read in one snapshot. */
  snapshot: z.int().min(1).optional(),
});
/** A table, or one part of a large one. */
export type ExportedTable = z.output<typeof table>;

/** What an export writes last and an import reads first. */
export const manifest = z.strictObject({
  format: z.literal('tenantry-export/1'),
  /** The tenant that the rows were; absent in what was made by hand. */
  tenant: z.strictObject({ id: z.uuid(), slug: z.string() }).optional(),
  /** Of the export, so that its repetition knows it. */
  operation: z.uuid().optional(),
  exportedAt: z.iso.datetime().optional(),
  /** The newest migration of the home: only a home of the same version takes the rows. */
  schemaVersion: z.string().min(1),
  tables: z.array(table).refine((tables) => new Set(tables.map(({ file }) => file)).size === tables.length, {
    message: 'names a file twice',
  }),
});
export type Manifest = z.output<typeof manifest>;

/** @returns undefined when there is none. @throws TenantryError `import_refused` when it has another form */
export async function readManifest(store: Store): Promise<Manifest | undefined> {
  const file = await store.read(manifestFile);
  if (file === undefined) return undefined;
  let text = '';
  for await (const chunk of file.setEncoding('utf8')) {
    text += chunk;
    if (text.length > 10_000_000) throw importRefused('The manifest is larger than 10 MB.');
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw importRefused('The manifest is not JSON.');
  }
  const read = manifest.safeParse(value);
  if (read.success) return read.data;
  const faults = read.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`);
  throw importRefused(`The manifest can't be used: ${faults.slice(0, 10).join('; ')}.`);
}

export const writeManifest = (store: Store, written: Manifest): Promise<void> =>
  store.write(manifestFile, Readable.from([`${JSON.stringify(manifest.parse(written), undefined, 2)}\n`]));

/** Passes bytes on and knows their SHA-256 at their end. */
export function hashing(bytes: AsyncIterable<unknown>): { bytes: Readable; sha256: () => string } {
  const hash = createHash('sha256');
  async function* pass() {
    for await (const chunk of bytes) {
      hash.update(chunk as Buffer);
      yield chunk;
    }
  }
  return { bytes: Readable.from(pass(), { objectMode: false }), sha256: () => hash.digest('hex') };
}

export const importRefused = (message: string, cause?: unknown) =>
  new TenantryError('import_refused', message, { cause });
