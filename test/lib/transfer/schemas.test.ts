import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { beginOffboarding } from '../../../functions/lib/lifecycle/offboard.ts';
import { runStep } from '../../../functions/lib/lifecycle/step.ts';
import {
  beginExport,
  beginImport,
  transferOperation,
  transferSteps,
} from '../../../functions/lib/lifecycle/transfer.ts';
import { parseMigration } from '../../../functions/lib/migrations/migration-file.ts';
import { type Manifest, readManifest, writeManifest } from '../../../functions/lib/transfer/manifest.ts';
import type { Store } from '../../../functions/lib/transfer/store.ts';
import { startWorld, strategies, type TestTenant, type World } from '../../support/world.ts';

/** What others' schemas are made of goes out and comes in again, in every strategy. */
const types = parseMigration(
  '9001-types.sql',
  `create type mood as enum ('calm', 'it''s, "odd"');
   create domain year as int check (value > 1900);
   create domain code as varchar(3);
   create domain daily as mood;
   create type address as (street text, zip varchar(5));
   create table visits (tenant_id uuid not null, id uuid not null default gen_random_uuid(), mood mood not null, moods mood[], year year,
     years year[], code code, daily daily, address address, addresses address[], primary key (tenant_id, id));`,
);
/** Names that need their quotes, and some that would lead out of a folder or fall together on a disk. */
const odd = [
  'Album',
  'album',
  'der "Große" Ärger',
  '../../etc/passwd',
  '1st',
  'a'.repeat(63),
  'Ä'.repeat(31),
  '__proto__',
];
const quotedName = (name: string) => `"${name.replaceAll('"', '""')}"`;
const quoted = parseMigration(
  '9002-quoted.sql',
  odd
    .map(
      (
        name,
      ) => `create table ${quotedName(name)} (tenant_id uuid not null, "Id" uuid not null default gen_random_uuid(),
        "The Title, or ""it""" text, "$1" text, "Übel\n" text, primary key (tenant_id, "Id"))`,
    )
    .join(';'),
);

let world: World;
let base: string;
beforeAll(async () => {
  world = await startWorld({ migrations: [types, quoted] });
  base = mkdtempSync(join(tmpdir(), 'tenantry-schemas-'));
}, 120_000);
afterAll(async () => {
  await world?.close();
  rmSync(base, { recursive: true, force: true });
});

const run = (operation: string, step: string, input = {}) =>
  runStep(
    { plane: world.plane, now: Date.now },
    { operation, step, input },
    transferOperation,
    transferSteps,
  );

/** Ends the operation as its machine would. */
async function finished(operation: string, step: string): Promise<void> {
  try {
    await run(operation, step);
    await run(operation, 'finish');
  } catch (error) {
    await run(operation, 'recordFailure', { failedStep: step });
    throw error;
  }
}

/** @returns the folder */
async function exported({ id, slug }: TestTenant): Promise<string> {
  const { operation } = await world.asProvisioner('catalog', (catalog) =>
    beginExport(catalog, id, { slug, to: pathToFileURL(base).href }),
  );
  await finished(operation.operationId, 'exportTenant');
  return join(base, operation.operationId);
}

async function imported({ id, slug }: TestTenant, path: string): Promise<void> {
  const { operation } = await world.asProvisioner('catalog', (catalog) =>
    beginImport(catalog, id, { slug, from: pathToFileURL(path).href, otherTenant: true }),
  );
  await finished(operation.operationId, 'importTenant');
}

const rowsOf = async (tenant: TestTenant, statement: string) =>
  (await world.database(tenant).query(statement)).rows;

// biome-ignore lint/suspicious/noExplicitAny: a manifest on its way to being wrong
type Written = any;
const manifestOf = (path: string): Written => JSON.parse(readFileSync(join(path, 'manifest.json'), 'utf8'));
/** Exchanges the rows of a table, and all else is left out. */
function replace(path: string, table: string, csv: string): void {
  const manifest = manifestOf(path);
  const entry = manifest.tables.find((each: Written) => each.table === table);
  writeFileSync(join(path, entry.file), csv);
  const sha256 = createHash('sha256').update(csv).digest('hex');
  const columns = csv.split('\n')[0]!.split(',');
  manifest.tables = [{ ...entry, columns, rows: csv.trimEnd().split('\n').length - 1, sha256 }];
  writeFileSync(join(path, 'manifest.json'), JSON.stringify(manifest));
}

describe.each(strategies)('%s', (strategy) => {
  it('takes back enums, domains, composite types and arrays of them', async () => {
    const tenant = await world.addTenant(strategy);
    await world.database(tenant).query(
      `insert into visits (mood, moods, year, years, code, daily, address, addresses) values
         ('calm', '{calm,"it''s, \\"odd\\""}', 2001, '{2001,null}', 'abc', 'it''s, "odd"', row('a "b", (c)', '12345'),
          array[row('', null)::address, row('two
lines', '1')::address]), ('calm', null, null, null, null, null, null, '{}')`,
    );
    const path = await exported(tenant);
    const target = await world.addTenant(strategy);
    await imported(target, path);
    const all = 'select v::text from visits v order by id';
    const [before, after] = [await rowsOf(tenant, all), await rowsOf(target, all)];
    const withoutTenant = (rows: Written[], { id }: TestTenant) =>
      rows.map(({ v }) => String(v).replace(id, ''));
    expect(withoutTenant(after, target)).toEqual(withoutTenant(before, tenant));
  }, 60_000);

  it.each([
    ['an unknown label', 'mood\nsecret', "not of its column's type", '22P02'],
    ['what a domain refuses', 'mood,year\ncalm,1', 'breaks a rule', '23514'],
    ['what a domain has no room for', 'mood,code\ncalm,secret', "not of its column's type", '22001'],
    ['no such composite', 'mood,address\ncalm,secret', "not of its column's type", '22P02'],
  ])('refuses %s, with table and file and without the value', async (_, csv, message, code) => {
    const path = await exported(world.tenants[strategy].a);
    replace(path, 'visits', `${csv}\n`);
    const error = await imported(world.tenants[strategy].b, path).catch((error) => error);
    expect(error).toMatchObject({ code: 'import_refused', message: expect.stringContaining(message) });
    for (const part of ['table visits', 'file visits.csv', `SQLSTATE ${code}`])
      expect(error.message).toContain(part);
    expect(error.message).not.toContain('secret');
    expect(await rowsOf(world.tenants[strategy].b, 'select from visits')).toEqual([]);
  });

  it('takes back tables and columns whose names need quotes', async () => {
    const tenant = await world.addTenant(strategy);
    for (const name of odd)
      await world
        .database(tenant)
        .query(
          `insert into ${quotedName(name)} ("The Title, or ""it""", "Übel\n") values ('x', 'y'), (null, '')`,
        );
    const path = await exported(tenant);
    const files: string[] = manifestOf(path).tables.map(({ file }: Written) => file);
    expect(readdirSync(path).sort()).toEqual([...files, 'manifest.json'].sort());
    expect(new Set(files.map((file) => file.toLowerCase())).size).toBe(files.length);
    for (const file of files) expect(file).toMatch(/^[a-z_][a-z0-9_]*(-[0-9a-f]{16})?\.csv$/);
    const target = await world.addTenant(strategy);
    await imported(target, path);
    for (const name of odd) {
      const all = `select "Id", "The Title, or ""it""", "$1", "Übel\n" from ${quotedName(name)} order by 1`;
      const there = await rowsOf(target, all);
      expect(there).toHaveLength(2);
      expect(there).toEqual(await rowsOf(tenant, all));
    }
  }, 60_000);

  it('offboards a tenant with such names, exported before', async () => {
    const { id, slug } = await world.addTenant(strategy);
    const { operation } = await world.asProvisioner('catalog', (catalog) =>
      beginOffboarding(catalog, id, { slug, graceSeconds: 0, exportTo: pathToFileURL(base).href }),
    );
    await run(operation.operationId, 'exportTenant');
    expect(manifestOf(join(base, operation.operationId)).tables.map(({ table }: Written) => table)).toEqual(
      expect.arrayContaining(odd),
    );
  }, 60_000);
});

it('names no file that it has not made safe', async () => {
  for (const file of [
    '../x.csv',
    '/x.csv',
    'a/b.csv',
    'Album.csv',
    'a.csv\n',
    '.csv',
    'a-b.csv',
    'a\0.csv',
  ]) {
    const table = { table: 'a', columns: ['b'], file, rows: 0, sha256: '0'.repeat(64) };
    const written: Manifest = { format: 'tenantry-export/1', schemaVersion: '1', tables: [table] };
    const writes: string[] = [];
    const store: Store = {
      read: async () => Readable.from([JSON.stringify(written)]),
      write: async (name) => void writes.push(name),
    };
    await expect(readManifest(store)).rejects.toMatchObject({ code: 'import_refused' });
    await expect(writeManifest(store, written)).rejects.toMatchObject({ code: 'export_refused' });
    expect(writes).toEqual([]);
  }
});
