import { execFileSync } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import {
  cpSync,
  createReadStream,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../../../functions/lib/database/connect.ts';
import { sql } from '../../../functions/lib/database/sql.ts';
import { readOperation } from '../../../functions/lib/lifecycle/operations.ts';
import { beginExport, beginImport } from '../../../functions/lib/lifecycle/transfer.ts';
import { importTables } from '../../../functions/lib/transfer/import.ts';
import { openStore, type Store } from '../../../functions/lib/transfer/store.ts';
import { startAwsEmulator } from '../../../infra/local/emulator/server.ts';
import { strategies, type TestTenant } from '../../support/world.ts';
import { type Leaving, startLeaving, steps } from '../lifecycle/leaving.ts';
import { patiently } from '../lifecycle/support.ts';
import { folders } from './folders.ts';
import { transfersOf } from './transfers.ts';

/** What leaves a tenant's home as files, and what comes in as files, in every strategy. */
let leaving: Leaving;
beforeAll(async () => {
  leaving = await startLeaving();
});
afterAll(() => leaving?.world.close());

const folder = folders('transfer');
const address = (path: string) => pathToFileURL(path).href;

const { step: runOnce, exportTo, importFrom } = transfersOf(() => leaving.world);
const run = (operation: string, step: string, more?: { clock: () => number }) =>
  patiently(() => runOnce(operation, step, more));
const end = (operation: string) =>
  runOnce(operation, 'recordFailure', { input: { failedStep: 'x', failure: { Error: 'Planned' } } });

async function exported(tenant: TestTenant): Promise<string> {
  const place = folder();
  const operation = await exportTo(tenant, place);
  for (const step of ['exportTenant', 'finish']) await run(operation, step);
  return join(place, operation);
}

/** How many pieces the files of an export are read in. */
async function piecesOf(path: string): Promise<number> {
  let pieces = 0;
  for (const { file } of manifestOf(path).tables)
    for await (const _ of createReadStream(join(path, file))) pieces += 1;
  return pieces;
}

const manifestOf = (path: string) => JSON.parse(readFileSync(join(path, 'manifest.json'), 'utf8'));
const count = async (tenant: TestTenant, table: string) =>
  (await (await leaving.databaseOf(tenant.id)).query(`select count(*)::int as n from ${table}`)).rows[0]!
    .n as number;

/** Values that a format could lose: quotes, lines, empty texts, nulls. */
const awkward = ['', 'a "quoted" one', 'two\nlines', "it's; -- no comment", '\\N', 'ä€😀', ' spaces '];

/** For an index, and nothing that could be compressed. */
const tooLong = Array.from({ length: 400 }, () => randomUUID()).join('');

describe.each(strategies)('%s', (strategy) => {
  it('exports what the tenant sees, and imports it again as it was', async () => {
    const tenant = await leaving.world.addTenant(strategy);
    const neighbour = leaving.world.tenants[strategy].b;
    await (await leaving.databaseOf(neighbour.id)).query(
      sql`insert into notes (body) values ('foreign') on conflict do nothing`,
    );
    const db = await leaving.databaseOf(tenant.id);
    await db.query(sql`insert into notes (body) select unnest(${awkward}::text[])`);
    await leaving.fill(tenant.id);
    const path = await exported(tenant);
    const manifest = manifestOf(path);
    expect(manifest).toMatchObject({
      format: 'tenantry-export/1',
      tenant: { id: tenant.id, slug: tenant.slug },
    });
    for (const { file, sha256, columns } of manifest.tables) {
      const bytes = readFileSync(join(path, file));
      expect(createHash('sha256').update(bytes).digest('hex')).toBe(sha256);
      expect(columns).not.toContain('tenant_id');
      expect(bytes.toString()).not.toContain('foreign');
    }
    const rows = Object.fromEntries(
      manifest.tables.map(({ table, rows }: { table: string; rows: number }) => [table, rows]),
    );
    expect(rows).toMatchObject({ notes: awkward.length + 2, folders: 1, pages: 1, marks: 3, items: 0 });
    expect(readdirSync(path).sort()).toEqual(
      [...manifest.tables.map(({ file }: { file: string }) => file), 'manifest.json'].sort(),
    );

    // Into another tenant, of every strategy, when it is said; never by accident.
    for (const target of strategies) {
      const other = await leaving.world.addTenant(target);
      const refused = await importFrom(other, path);
      await expect(runOnce(refused, 'importTenant')).rejects.toMatchObject({
        name: 'ImportRefused',
        message: expect.stringContaining('--other-tenant'),
      });
      await end(refused);
      const operation = await importFrom(other, path, true);
      await Promise.all([run(operation, 'importTenant'), run(operation, 'importTenant')]);
      await run(operation, 'importTenant');
      await run(operation, 'finish');
      const { result, state } = await leaving.read(operation);
      expect([state, result.rows]).toEqual(['done', rows]);
      const bodies = await (await leaving.databaseOf(other.id)).query(
        'select body, parent_id is null as top from notes order by body',
      );
      const originals = await db.query('select body, parent_id is null as top from notes order by body');
      expect(bodies.rows).toEqual(originals.rows);
      expect(await count(other, 'marks')).toBe(3);
    }
  });

  it('goes on after a crash, and into a folder of its own', async () => {
    const tenant = await leaving.world.addTenant(strategy);
    await leaving.fill(tenant.id);
    const place = folder();
    const operation = await exportTo(tenant, place);
    const path = join(place, operation);
    for (const delay of [0, 10, 25, 50]) {
      const attempt = runOnce(operation, 'exportTenant').catch(() => 'cut');
      await new Promise((resolve) => setTimeout(resolve, delay));
      await leaving.lifecycle.cutProvisioner();
      await attempt;
    }
    await run(operation, 'exportTenant');
    await run(operation, 'finish');
    expect(manifestOf(path).operation).toBe(operation);
    expect(readdirSync(path).filter((name) => name.startsWith('.'))).toEqual([]);
    const second = await exportTo(tenant, place);
    await run(second, 'exportTenant');
    await end(second);
    expect(manifestOf(path).operation).toBe(operation);

    const target = await leaving.world.addTenant(strategy);
    const importing = await importFrom(target, path, true);
    for (const delay of [0, 10, 25, 50]) {
      const attempt = runOnce(importing, 'importTenant').catch(() => 'cut');
      await new Promise((resolve) => setTimeout(resolve, delay));
      await leaving.lifecycle.cutProvisioner();
      await attempt;
    }
    await run(importing, 'importTenant');
    expect([await count(target, 'notes'), await count(target, 'marks')]).toEqual([2, 3]);
  });

  it('writes a large table in parts, one a run, whatever dies and changes between them', async () => {
    const tenant = await leaving.world.addTenant(strategy);
    for (const each of [tenant, leaving.world.tenants[strategy].b])
      await (await leaving.databaseOf(each.id)).query(
        sql`insert into notes (body) select repeat('x', 200) || g from generate_series(1, 1000) g on conflict do nothing`,
      );
    const place = folder();
    const operation = await exportTo(tenant, place);
    const path = join(place, operation);
    // A clock that is ten minutes further at each look: time is up after the first part of each run.
    let looks = 0;
    const late = () => Date.now() + 600_000 * looks++;
    for (let attempts = 0, isDone = false; !isDone; attempts += 1) {
      const attempt = runOnce(operation, 'exportTenant', { clock: late, partBytes: 50_000 }).then(
        () => true,
        () => false,
      );
      if (attempts % 3 === 2) {
        await new Promise((resolve) => setTimeout(resolve, 5 * attempts));
        await leaving.lifecycle.cutProvisioner();
      }
      if (attempts === 4)
        await (await leaving.databaseOf(tenant.id)).query(sql`insert into notes (body) values ('meanwhile')`);
      isDone = await attempt;
    }
    await run(operation, 'finish');
    const parts = manifestOf(path).tables.filter(notes);
    expect(parts.length).toBeGreaterThan(5);
    const byPart = parts.map(({ file, rows }: { file: string; rows: number }) => {
      const lines = readFileSync(join(path, file), 'utf8').trimEnd().split('\n').slice(1);
      expect(lines).toHaveLength(rows);
      return lines.map((line) => line.split(',')[0]!);
    });
    const ids: string[] = byPart.flat();
    expect(new Set(ids).size).toBe(ids.length);
    // The one that was written meanwhile may have come in time.
    expect([1_000, 1_001]).toContain(ids.length);
    // Each part lies before the next.
    expect(byPart.flatMap((part: string[]) => part.toSorted())).toEqual(ids.toSorted());
    const kept = await leaving.world.asProvisioner(tenant, async (connection) => {
      await connection.query('begin; set local role tenancy_keeper');
      const { rows } = await connection.query('select from tenancy.exports');
      await connection.query('rollback');
      return rows.length;
    });
    expect(kept).toBe(0);

    const other = await leaving.world.addTenant(strategy);
    const importing = await importFrom(other, path, true);
    for (const step of ['importTenant', 'finish']) await run(importing, step);
    expect(await count(other, 'notes')).toBe(ids.length);
    expect((await leaving.read(importing)).result.rows).toMatchObject({ notes: ids.length });
  });

  it.each(['reading', 'writing', 'one statement'])(
    'refuses an import that takes too long in %s, and leaves nothing',
    async (when) => {
      const tenant = await leaving.world.addTenant(strategy);
      await leaving.fill(tenant.id);
      await (await leaving.databaseOf(tenant.id)).query(
        sql`insert into notes (body) select 'n' || g from generate_series(1, 20000) g`,
      );
      const path = await exported(tenant);
      const target = await leaving.world.addTenant(strategy);
      const before = await leaving.everything();
      const operation = await importFrom(target, path, true);
      // It looks at the clock twice to begin with, for each piece of a file, and before it writes each table.
      const inTime = when === 'reading' ? 3 : 2 + (await piecesOf(path));
      const jump = when === 'one statement' ? 13.5 * 60_000 - 2 : 3_600_000;
      const begun = Date.now();
      let looks = 0;
      const clock = () => begun + (++looks > inTime ? jump : 0);
      await expect(runOnce(operation, 'importTenant', { clock })).rejects.toMatchObject({
        name: 'ImportRefused',
        message: expect.stringContaining('Import it in pieces'),
      });
      await end(operation);
      expect(await leaving.everything()).toEqual(before);
      expect(await count(target, 'notes')).toBe(0);
    },
  );

  describe('an import that is refused', () => {
    let full: TestTenant;
    let empty: TestTenant;
    /** An export of the full one. */
    let whole: string;
    beforeAll(async () => {
      full = await leaving.world.addTenant(strategy);
      empty = await leaving.world.addTenant(strategy);
      await leaving.fill(full.id);
      whole = await exported(full);
    });

    it.each([
      [
        'a changed file',
        'SHA-256',
        (path: string) => {
          const file = join(path, 'notes.csv');
          writeFileSync(file, readFileSync(file, 'utf8').replace('child', 'other'));
        },
      ],
      ['a missing file', 'is missing', (path: string) => rmSync(join(path, 'notes.csv'))],
      [
        'a wrong count',
        'rows, its manifest says',
        edit((m) => {
          m.tables.find(notes).rows += 1;
        }),
      ],
      [
        'another schema version',
        'schema version',
        edit((m) => {
          m.schemaVersion = '0001-old';
        }),
      ],
      [
        'an unknown table',
        'no table secrets',
        edit((m) => {
          m.tables[0].table = 'secrets';
        }),
      ],
      [
        'an unknown column',
        'no column owner',
        edit((m) => {
          m.tables.find(notes).columns[0] = 'owner';
        }),
      ],
      [
        'another format',
        'format',
        edit((m) => {
          m.format = 'other/9';
        }),
      ],
      [
        'a way out of the folder',
        'file',
        edit((m) => {
          m.tables[0].file = '../../etc/passwd.csv';
        }),
      ],
      ['rows that are there already', 'there already', () => {}],
      [
        'a row of another tenant',
        'another tenant',
        replaceNotes(
          'tenant_id,note_id,body',
          '6f1b4a52-0000-4000-8000-000000000000,6f1b4a52-0000-4000-8000-000000000001,x',
        ),
      ],
      [
        'a row that points at nothing',
        'points at a row that is not there',
        replaceNotes(
          'note_id,body,parent_id',
          '6f1b4a52-0000-4000-8000-000000000001,x,6f1b4a52-0000-4000-8000-000000000002',
        ),
      ],
      ['a value of another type', 'type', replaceNotes('note_id,body', 'no-uuid,x')],
      ['a text with a NUL', 'a NUL in it', replaceNotes('note_id,body', `${randomUUID()},a\0b`)],
      ['what is no CSV', 'It is not CSV', replaceNotes('note_id,body', `${randomUUID()},"without an end`)],
      [
        'a column that is named twice',
        'names a column twice',
        edit((m) => {
          m.tables.find(notes).columns.push('note_id');
        }),
      ],
      [
        'a line that PostgreSQL takes for the end, with rows behind it',
        'rows behind it',
        (path: string) => {
          replaceNotes('body', 'a\n\\.\nb')(path);
          edit(({ tables }) => {
            delete tables[0].rows;
          })(path);
        },
      ],
      ['a value that is too long for its index', 'longer than the home', replaceNotes('body', tooLong)],
      [
        'more files than a server has locks for',
        'Import it in pieces',
        edit((m) => {
          m.tables = Array.from({ length: 1_001 }, (_, number) => ({
            table: 'notes',
            columns: ['body'],
            file: `notes.${number}.csv`,
          }));
        }),
      ],
      [
        'megabytes of names, in a text that a state machine passes on',
        /^.{100,9000}$/,
        edit((m) => {
          m.tables[0].columns = Array.from({ length: 150_000 }, (_, number) => `no_such_column_${number}`);
        }),
      ],
      [
        'a link, which may lead to the files of others',
        'is a link',
        (path: string) => {
          const file = join(path, 'notes.csv');
          renameSync(file, `${path}-others.csv`);
          symlinkSync(`${path}-others.csv`, file);
        },
      ],
      [
        'a pipe in place of a file, without waiting for it',
        'it is no file',
        (path: string) => {
          rmSync(join(path, 'notes.csv'));
          execFileSync('mkfifo', [join(path, 'notes.csv')]);
        },
      ],
    ] as [string, string | RegExp, (path: string) => void][])(
      'refuses %s, and leaves nothing',
      async (_, message, spoil) => {
        const path = folder();
        cpSync(whole, path, { recursive: true });
        spoil(path);
        // The same rows again are refused by the tenant that has them; all else by one that is empty.
        const target = message === 'there already' ? full : empty;
        const before = await leaving.everything();
        const operation = await importFrom(target, path, true);
        await expect(runOnce(operation, 'importTenant')).rejects.toMatchObject({
          name: 'ImportRefused',
          message: expect.stringMatching(message),
        });
        await end(operation);
        expect(await leaving.everything()).toEqual(before);
        expect(await count(target, 'notes')).toBe(target === full ? 2 : 0);
      },
    );
  });

  it('takes what was made by hand', async () => {
    const tenant = await leaving.world.addTenant(strategy);
    const path = await exported(tenant);
    const { schemaVersion } = manifestOf(path);
    // Within quotes, and at the very end, a line `\.` takes nothing away.
    const csv = `body,amount\n"from ""elsewhere""",7\n"two\n\\.\nlines",8\n\\.\n`;
    writeFileSync(join(path, 'notes.csv'), csv);
    const tables = [{ table: 'notes', columns: ['body', 'amount'], file: 'notes.csv' }];
    writeFileSync(
      join(path, 'manifest.json'),
      JSON.stringify({ format: 'tenantry-export/1', schemaVersion, tables }),
    );
    const operation = await importFrom(tenant, path);
    // Again, as after a step whose record was lost.
    for (const step of ['importTenant', 'importTenant', 'finish']) await run(operation, step);
    const { rows } = await (await leaving.databaseOf(tenant.id)).query(
      'select body, amount from notes order by amount',
    );
    expect(rows).toEqual([
      { body: 'from "elsewhere"', amount: '7' },
      { body: 'two\n\\.\nlines', amount: '8' },
    ]);
  });

  it('is what an offboarding writes before it removes anything', async () => {
    const tenant = await leaving.world.addTenant(strategy);
    await leaving.fill(tenant.id);
    const kept = folder();
    const operation = await leaving.begin(tenant.id, tenant.slug, { exportTo: address(kept) });
    const path = join(kept, operation);
    await leaving.run(operation, 'suspend');
    await run(operation, 'exportTenant');
    for (const step of steps) await leaving.run(operation, step);
    expect(manifestOf(path).tables.find(notes).rows).toBe(2);
    expect((await leaving.catalog((catalog) => readOperation(catalog, operation))).result).toMatchObject({
      url: address(path),
      left: [],
    });
    // It can come back as another tenant, and not as itself.
    const again = await leaving.world.addTenant(strategy);
    const importing = await importFrom(again, path, true);
    await run(importing, 'importTenant');
    expect(await count(again, 'notes')).toBe(2);
    const buried = await importFrom(tenant, path);
    await expect(runOnce(buried, 'importTenant')).rejects.toMatchObject({ name: 'ImportRefused' });
  });
});

it('keeps tenants apart that are exported to one place at once, and what a failed one has left', async () => {
  const place = folder();
  const tenants = [await leaving.world.addTenant('rls'), await leaving.world.addTenant('schema')];
  for (const { id, slug } of tenants)
    await (await leaving.databaseOf(id)).query(
      sql`insert into notes (body) select ${slug} || g from generate_series(1, 1000) g`,
    );
  // It ends after some parts: its files stay, without a manifest.
  const failed = await exportTo(tenants[0]!, place);
  let looks = 0;
  const late = () => Date.now() + 600_000 * looks++;
  for (let runs = 0; runs < 4; runs += 1)
    await runOnce(failed, 'exportTenant', { clock: late, partBytes: 50_000 }).catch(() => {});
  await end(failed);
  const operations = await Promise.all(tenants.map((tenant) => exportTo(tenant, place)));
  await Promise.all(operations.map((operation) => run(operation, 'exportTenant')));
  for (const [index, operation] of operations.entries()) {
    const path = join(place, operation);
    const files = manifestOf(path).tables.map(({ file }: { file: string }) => file);
    expect(readdirSync(path).sort()).toEqual([...files, 'manifest.json'].sort());
    const text = readFileSync(join(path, 'notes.csv'), 'utf8');
    expect([text.includes(tenants[index]!.slug), text.includes(tenants[1 - index]!.slug)]).toEqual([
      true,
      false,
    ]);
  }
  expect(readdirSync(join(place, failed))).not.toContain('manifest.json');
});

it('refuses rows of a version that the home had when their reading began', async () => {
  const path = await exported(await leaving.world.addTenant('schema'));
  const { home, place } = await leaving.world.addTenant('schema');
  const asOwner = (statement: string) =>
    withConnection(place.admin, (connection) =>
      connection.query(`begin; set local role tenancy_owner; ${statement}; commit`),
    );
  const files = openStore(address(path));
  const meanwhile: Store = {
    ...files,
    async read(name) {
      if (name === 'notes.csv')
        await asOwner(
          `insert into ${home.schema}._migrations (name, checksum) values ('9999-meanwhile.sql', 'x')`,
        );
      return files.read(name);
    },
  };
  const rows = { ...home, keys: leaving.world.plane.keys };
  await expect(
    withConnection(place.admin, (connection) =>
      importTables(connection, rows, meanwhile, manifestOf(path), randomUUID(), {
        until: Date.now() + 60_000,
        wanted: async () => {},
        clock: Date.now,
      }),
    ),
  ).rejects.toMatchObject({ code: 'import_refused', message: expect.stringContaining('has 9999-meanwhile') });
});

it('goes through S3 as through a folder', async () => {
  const emulator = await startAwsEmulator({ s3: { folder: folder(), buckets: ['exports-here'] } });
  process.env.AWS_ENDPOINT_URL_S3 = emulator.url;
  try {
    const tenant = await leaving.world.addTenant('rls');
    await leaving.fill(tenant.id);
    const to = `s3://exports-here/${tenant.slug}`;
    const out = await leaving.catalog((catalog) =>
      beginExport(catalog, tenant.id, { slug: tenant.slug, to }),
    );
    for (const step of ['exportTenant', 'finish']) await run(out.operationId, step);
    const target = await leaving.world.addTenant('database');
    const into = await leaving.catalog((catalog) =>
      beginImport(catalog, target.id, {
        slug: target.slug,
        from: `${to}/${out.operationId}`,
        otherTenant: true,
      }),
    );
    await run(into.operationId, 'importTenant');
    expect([await count(target, 'notes'), await count(target, 'marks')]).toEqual([2, 3]);
  } finally {
    delete process.env.AWS_ENDPOINT_URL_S3;
    await emulator.close();
  }
});

it('writes a large tenant over several runs', async () => {
  const tenant = await leaving.world.addTenant('schema');
  const db = await leaving.databaseOf(tenant.id);
  await db.query(
    sql`insert into notes (body, amount) select repeat('x', 200) || g, g from generate_series(1, 20000) g`,
  );
  const place = folder();
  const operation = await exportTo(tenant, place);
  const path = join(place, operation);
  // A clock that is ten minutes further at each look: time is up after the first table of each run.
  let looks = 0;
  await run(operation, 'exportTenant', { clock: () => Date.now() + 600_000 * looks++ });
  const { tables } = manifestOf(path);
  expect(tables.find(notes).rows).toBe(20_000);
  expect(tables.map(({ snapshot }: { snapshot: number }) => snapshot)).toEqual(
    tables.map((_: unknown, index: number) => index + 1),
  );
});

function notes({ table }: { table: string }): boolean {
  return table === 'notes';
}
// biome-ignore lint/suspicious/noExplicitAny: a manifest on its way to being wrong
function edit(change: (manifest: any) => void): (path: string) => void {
  return (path) => {
    const manifest = manifestOf(path);
    change(manifest);
    writeFileSync(join(path, 'manifest.json'), JSON.stringify(manifest));
  };
}
function replaceNotes(header: string, row: string): (path: string) => void {
  return (path) => {
    const csv = `${header}\n${row}\n`;
    writeFileSync(join(path, 'notes.csv'), csv);
    const sha256 = createHash('sha256').update(csv).digest('hex');
    edit((manifest) => {
      const table = { table: 'notes', columns: header.split(','), file: 'notes.csv', rows: 1, sha256 };
      manifest.tables = [table];
    })(path);
  };
}
