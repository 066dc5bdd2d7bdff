import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { z } from 'zod';
import { TenantryError } from '../errors.ts';
import type { Store } from './store.ts';

const manifestFile = 'manifest.json';

/** Any identifier of PostgreSQL's: 63 bytes of whatever its quotes hold. */
const name = z
  .string()
  .refine(
    (text) => text !== '' && !text.includes('\0') && Buffer.byteLength(text) <= 63,
    'is no name of a table or column',
  );

const table = z.strictObject({
  table: name,
  /** In the file's order. Without tenant_id the rows become the importing tenant's. */
  columns: z
    .array(name)
    .min(1)
    .refine((columns) => new Set(columns).size === columns.length, { message: 'names a column twice' }),
  /** Beside the manifest: CSV as PostgreSQL's COPY writes it, with a header; an empty field is null, `""` an empty text. */
  file: z
    .string()
    .regex(
      /^[a-z_][a-z0-9_]{0,62}(-[0-9a-f]{16})?(\.\d{1,6})?\.csv$/,
      'is no name beside the manifest, of small letters, digits and `_`, that ends with `.csv`',
    ),
  /** An export says both. Whoever writes a manifest by hand may leave them out: then the file is taken as it is. */
  rows: z.int().min(0).optional(),
  sha256: z
    .string()
    .regex(/^[0-9a-f]{64}$/)
    .optional(),
  /** Tables with the same number were read in one snapshot. */
  snapshot: z.int().min(1).optional(),
});
/** A table, or one part of a large one. */
export type GivenTable = z.output<typeof table>;
export type ExportedTable = GivenTable & { readonly rows: number; readonly sha256: string };

/** What an export writes last and an import reads first. */
export const manifest = z.strictObject({
  format: z.literal('tenantry-export/1'),
  /** The tenant that the rows were; absent in what was made by hand. */
  tenant: z.strictObject({ id: z.uuid(), slug: z.string().max(100) }).optional(),
  /** Of the export, so that its repetition knows it. */
  operation: z.uuid().optional(),
  exportedAt: z.iso.datetime().optional(),
  /** The newest migration of the home: only a home of the same version takes the rows. */
  schemaVersion: z.string().min(1).max(255),
  tables: z.array(table).refine((tables) => new Set(tables.map(({ file }) => file)).size === tables.length, {
    message: 'names a file twice',
  }),
});
export type Manifest = z.output<typeof manifest>;

/**
 * The file of a table's part. A name that is no plain one leaves what of it is safe in a path, and a digest that tells it from
 * others: of "Album" and "album" some disks would make one file.
 */
export function fileOf(table: string, part: number): string {
  const plain = table.toLowerCase().replaceAll(/[^a-z0-9_]/g, '_');
  const digest = createHash('sha256').update(table).digest('hex').slice(0, 16);
  const safe = /^[a-z_]/.test(plain) ? plain : `_${plain}`.slice(0, 63);
  return `${safe === table ? safe : `${safe}-${digest}`}${part === 1 ? '' : `.${part}`}.csv`;
}

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
  throw importRefused(`The manifest can't be used: ${faultsOf(read.error)}.`);
}

/** @throws TenantryError `export_refused` when nobody could read it again */
export async function writeManifest(store: Store, written: Manifest): Promise<void> {
  const { success, data, error } = manifest.safeParse(written);
  if (!success)
    throw new TenantryError(
      'export_refused',
      `What was exported has no form that an import reads: ${faultsOf(error)}.`,
    );
  await store.write(manifestFile, Readable.from([`${JSON.stringify(data, undefined, 2)}\n`]));
}

const faultsOf = ({ issues }: z.ZodError) =>
  issues
    .slice(0, 10)
    .map(({ path, message }) => `${path.join('.')}: ${message}`)
    .join('; ');

/** Passes bytes on, and asks once a second whether anybody still wants them. */
export async function* whileWanted(
  bytes: AsyncIterable<unknown>,
  wanted: () => Promise<void>,
  clock: () => number,
) {
  let asked = clock();
  for await (const chunk of bytes) {
    // A clock that was put back is no reason to ask no more.
    if (Math.abs(clock() - asked) >= 1_000) {
      await wanted();
      asked = clock();
    }
    yield chunk;
  }
}

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
