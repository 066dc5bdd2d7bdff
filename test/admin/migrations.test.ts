import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type DriftPage, findDrift } from '../../functions/lib/admin/drift.ts';
import { parseMigration } from '../../functions/lib/migrations/migration-file.ts';
import type { Release } from '../../functions/lib/migrations/release.ts';
import { migratorOf, releaseWith, run } from '../lib/lifecycle/migrate.support.ts';
import { type AdminWorld, code, startAdmin } from './support.ts';

let it_: AdminWorld;
let release: Release;
beforeAll(async () => {
  const made = await startAdmin();
  release = releaseWith(
    made.world,
    parseMigration(
      '9701-tag.sql',
      'alter table notes add column tag text;\ncreate index notes_tag on notes (tag, tenant_id);',
    ),
  );
  it_ = { ...made, admin: Object.assign(made.admin, { release: async () => release }) };
});
afterAll(() => it_?.world.close());

const ask: AdminWorld['ask'] = (...request) => it_.ask(...request);
const carryOut = async (operation: string) =>
  (await run(migratorOf(it_.world, release), operation)).outcome.status;

describe('migrations over the admin API', () => {
  it('plans: which homes, from where to where, and what each statement locks', async () => {
    const { status, body } = await ask('POST', '/migrations/plan', {});
    expect(status).toBe(200);
    expect(body).toMatchObject({ version: '9701-tag', total: 5 });
    expect(body.targets.at(-1)).toEqual({
      tenant: null,
      ring: 'shared',
      from: '9000-notes',
      to: '9701-tag',
      pinned: null,
      moving: null,
      ahead: null,
    });
    expect(body.targets[0]).toMatchObject({ ring: 'canary', from: '9000-notes', to: '9701-tag' });
    const file = body.files.find(({ file }: { file: string }) => file === '9701-tag.sql');
    expect(file.statements).toMatchObject([
      { lock: 'ACCESS EXCLUSIVE', blocks: 'reads and writes' },
      { statement: 'create index notes_tag on notes (tag, tenant_id)', lock: 'SHARE', blocks: 'writes' },
    ]);
    // Nothing has begun.
    expect(code(await ask('GET', '/migrations/latest'))).toEqual([404, 'unknown_operation']);
  });

  it('plans: what would refuse the files, by strategy, without changing anything', async () => {
    const taken = ['database', 'schema', 'rls'].map((strategy) => ({
      strategy,
      outcome: 'taken',
      reason: null,
    }));
    const plan = async () =>
      (await ask('POST', '/migrations/plan', {})).body.rehearsals as { reason: string | null }[];
    const sorted = (list: object[]) => expect.arrayContaining(list);
    expect(await plan()).toEqual(sorted(taken));
    const own = release;
    const last = (text: string) => {
      release = releaseWith({ ...it_.world, release: own }, parseMigration('9702-odd.sql', text));
    };
    last('select 1;\ncreate policy mine on notes using (true)');
    expect(await plan()).toEqual(
      sorted([
        ...taken.slice(0, 2),
        {
          strategy: 'rls',
          outcome: 'refused',
          reason: expect.stringMatching(
            /^9702-odd.sql would .*\n {2}notes.mine: is a policy of its own.*drop it/,
          ),
        },
      ]),
    );
    // By the name that the file gives it, not that of the schema in which it was tried.
    last(
      'create table keyed (tenant_id uuid not null, id int primary key);\ninsert into keyed (id) select amount from notes',
    );
    expect((await plan()).map(({ reason }) => reason)).toEqual([
      expect.stringContaining('keyed_pkey: is unique over all tenants'),
      expect.stringContaining('keyed_pkey: is unique over all tenants'),
      expect.stringMatching(/^9702-odd.sql failed: keyed has a key over all tenants/),
    ]);
    last('select 1;\nselect 1 / 0');
    const everywhere = await plan();
    expect(everywhere).toHaveLength(3);
    for (const one of everywhere)
      expect(one).toMatchObject({
        outcome: 'refused',
        reason: expect.stringMatching(
          /^9702-odd.sql failed: division by zero .*, at line 2 \(`select 1 \/ 0`\)/,
        ),
      });
    // What a plan has no time for, and a database that is not at this runtime: it says so, and the run tries it.
    last('select pg_sleep(20)');
    expect(await plan()).toEqual(
      sorted(taken.map((one) => ({ ...one, outcome: 'untried', reason: 'it takes longer than 15 s' }))),
    );
    // Also where that time goes into what homes have.
    const slow = parseMigration('8999-slow.sql', 'select pg_sleep(20)');
    release = { ...own, home: [...own.home, slow].sort((a, b) => a.name.localeCompare(b.name)) };
    expect(await plan()).toEqual(
      sorted(taken.map((one) => ({ ...one, outcome: 'untried', reason: 'it takes longer than 15 s' }))),
    );
    release = { ...own, runtime: [...own.runtime, parseMigration('9999-newer.sql', 'select 1')] };
    expect(await plan()).toEqual(
      sorted(
        taken.map((one) => ({ ...one, outcome: 'untried', reason: expect.stringContaining('runtime') })),
      ),
    );
    release = own;
    const left = await it_.world.asProvisioner(it_.world.tenants.rls.a, (connection) =>
      connection.query("select nspname from pg_namespace where nspname like 'reference%'"),
    );
    expect(left.rows).toEqual([]);
    expect(code(await ask('GET', '/migrations/latest'))).toEqual([404, 'unknown_operation']);
  });

  it('refuses what cannot be: no such version, no such canary, a percentage of 101', async () => {
    expect(code(await ask('POST', '/migrations', { version: '8888' }))).toEqual([409, 'migration_refused']);
    expect(code(await ask('POST', '/migrations', { canaries: ['nobody-here'] }))).toEqual([
      404,
      'unknown_tenant',
    ]);
    for (const path of ['/migrations', '/migrations/plan']) {
      const sharing = await ask('POST', path, { canaries: ['schema-a', 'rls-a'] });
      expect(code(sharing)).toEqual([409, 'wrong_strategy']);
      expect(JSON.stringify(sharing.body)).toContain('rls-a can’t be a canary'.replace('’', "'"));
    }
    expect(code(await ask('POST', '/migrations', { percent: 101 }))).toEqual([400, 'invalid_request']);
    expect(code(await ask('POST', '/migrations/resume', {}))).toEqual([409, 'wrong_status']);
    expect(code(await ask('POST', '/migrations/halt', {}))).toEqual([404, 'unknown_operation']);
    expect(code(await ask('GET', '/migrations/not-an-id'))).toEqual([404, 'unknown_operation']);
  });

  it('pins a tenant with tables of its own, and says what to do with one that shares them', async () => {
    expect(
      code(await ask('POST', '/tenants/rls-a/pin', { version: '9000', reason: 'audit', days: 3 })),
    ).toEqual([409, 'wrong_strategy']);
    expect(
      code(await ask('POST', '/tenants/schema-b/pin', { version: '8000', reason: 'audit', days: 3 })),
    ).toEqual([409, 'migration_refused']);
    const past = await ask('POST', '/tenants/schema-b/pin', { version: '0000', reason: 'audit', days: 3 });
    expect(code(past)).toEqual([409, 'migration_refused']);
    expect(past.body.error.message).toContain('schema-b is at 9000-notes already');
    const { status, body } = await ask('POST', '/tenants/schema-b/pin', {
      version: '9000',
      reason: 'audit',
      days: 3,
    });
    expect([status, body.version]).toEqual([200, '9000-notes']);
  });

  it('runs by the state machine, once for one key, and reports rings and names', async () => {
    const begun = await ask('POST', '/migrations', {}, { 'Idempotency-Key': 'release-1' });
    expect(begun.status).toBe(202);
    const again = await ask('POST', '/migrations', {}, { 'Idempotency-Key': 'release-1' });
    expect(again.body.operation.id).toBe(begun.body.operation.id);
    expect(
      code(await ask('POST', '/migrations', { percent: 5 }, { 'Idempotency-Key': 'release-1' })),
    ).toEqual([409, 'idempotency_conflict']);
    expect(code(await ask('POST', '/migrations', {}))).toEqual([409, 'operation_running']);
    const { id } = begun.body.operation;
    expect(it_.started.filter(({ name }) => name === id)).toEqual(
      Array(2).fill({
        machine: 'arn:aws:states:eu-west-1:111122223333:stateMachine:migrate-tenants',
        name: id,
        input: { operation: id },
      }),
    );
    expect(await carryOut(id)).toBe('SUCCEEDED');
    const { body } = await ask('GET', '/migrations/latest');
    expect(body.operation).toMatchObject({ id, kind: 'migrate', state: 'done', tenant: null });
    expect(body.rings.find(({ ring }: { ring: string }) => ring === 'shared')).toEqual({
      ring: 'shared',
      pending: 0,
      working: 0,
      done: 1,
      quarantined: 0,
      pinned: 0,
      moving: 0,
      gone: 0,
    });
    expect(body.named).toMatchObject([
      { slug: 'schema-b', state: 'pinned', reason: expect.stringContaining('audit') },
    ]);
    expect((await ask('GET', '/tenants/schema-a')).body.schemaVersion).toBe('9701-tag');
    expect((await ask('GET', '/tenants/schema-b')).body.schemaVersion).toBe('9000-notes');
  });

  it.each(['schema-a', 'rls-a'])('says of %s that the last run has left it out, and why', async (slug) => {
    const { home } = (await ask('GET', `/tenants/${slug}`)).body;
    const become = (state: string, reason: string | null) =>
      it_.world.asProvisioner('catalog', (catalog) =>
        catalog.query('update catalog.migration_targets set state = $2, reason = $3 where target_id = $1', [
          ...[slug === 'rls-a' ? home.cluster.id : home.id, state, reason],
        ]),
      );
    const told = async () => {
      const why = (await ask('GET', `/tenants/${slug}/why`)).body;
      const { migrations } = (await ask('GET', '/health', undefined, {}, { tenant: slug })).body;
      return { ...why, migrations };
    };
    await become('quarantined', '9701-tag.sql failed: this.');
    expect(await told()).toMatchObject({
      why: 'Its agents are served. The last migration run has left its tables as they were: 9701-tag.sql failed: this.',
      run: ['npm run tenants -- migrate status'],
      migrations: 'left out: 9701-tag.sql failed: this.',
    });
    await become('done', null);
    expect(await told()).toMatchObject({ why: 'Its agents are served.', run: [], migrations: 'ok' });
  });

  it('resumes what a halted run has left, and unpins', async () => {
    expect((await ask('POST', '/tenants/schema-b/unpin', {})).status).toBe(200);
    expect(code(await ask('POST', '/tenants/schema-b/unpin', {}))).toEqual([409, 'wrong_status']);
    const begun = await ask('POST', '/migrations', { tolerated: 3 });
    expect((await ask('POST', '/migrations/halt', {})).status).toBe(200);
    expect(code(await ask('POST', '/migrations/resume', {}))).toEqual([409, 'operation_running']);
    expect(await carryOut(begun.body.operation.id)).toBe('FAILED');
    expect((await ask('GET', '/migrations/latest')).body.operation.reason).toBe(
      'An operator has halted the run.',
    );
    const resume = () => ask('POST', '/migrations/resume', {}, { 'Idempotency-Key': 'resume-1' });
    const resumed = await resume();
    expect(resumed.body).toMatchObject({ operation: { state: 'running' } });
    const { id } = resumed.body.operation;
    expect((await resume()).body.operation.id).toBe(id);
    expect(await carryOut(id)).toBe('SUCCEEDED');
    expect((await resume()).body.operation).toMatchObject({ id, state: 'done' });
    expect(code(await ask('POST', '/migrations/resume', {}))).toEqual([409, 'wrong_status']);
    expect((await ask('GET', '/tenants/schema-b')).body.schemaVersion).toBe('9701-tag');
  });

  it('finds drift: what is missing, foreign or changed in a home, in every strategy', async () => {
    const whole = await ask('GET', '/migrations/drift');
    expect(it_.faults).toEqual([]);
    expect(whole.body).toEqual({ checked: 5, drifts: [], next: null });
    const { schema: own, rls } = it_.world.tenants;
    const change = (tenant: typeof own.a, sql: string) =>
      it_.world.asProvisioner(tenant, (connection) =>
        connection.query(
          `begin; set local role tenancy_owner; set local search_path = ${tenant.home.schema}; ${sql}; commit`,
        ),
      );
    await change(
      own.a,
      'drop index notes_tag; alter table notes add column mine text; alter table notes alter column body drop not null',
    );
    await change(rls.a, 'create index notes_amount on notes (amount, tenant_id)');
    const { body } = await ask('GET', '/migrations/drift');
    expect(body.drifts).toEqual(
      expect.arrayContaining([
        { tenant: 'schema-a', object: 'index notes_tag', drift: 'is missing' },
        { tenant: 'schema-a', object: 'column notes.mine', drift: 'is in no migration' },
        { tenant: 'schema-a', object: 'column notes.body', drift: 'is `text`, should be `text not null`' },
        { tenant: null, object: 'index notes_amount', drift: 'is in no migration' },
      ]),
    );
    expect(body.drifts).toHaveLength(4);
    // What does not fit into the time of one answer comes in the next: in each at least one home, none in two.
    const pages: DriftPage[] = [];
    for (let after: string | null = ''; after !== null; after = pages.at(-1)!.next)
      pages.push(await findDrift(it_.admin, undefined, after, false, 0));
    expect(pages.map(({ checked }) => checked)).toEqual([1, 1, 1, 1, 1]);
    expect(pages.flatMap(({ drifts }) => drifts)).toEqual(body.drifts);
    expect((await ask('GET', '/migrations/drift', undefined, {}, { tenant: 'schema-b' })).body).toEqual({
      checked: 1,
      drifts: [],
      next: null,
    });
    // Restored to an earlier time, of which the catalog knows nothing: no run would take it along.
    const restored = it_.world.tenants.database.a;
    await change(
      restored,
      "alter table notes drop column tag; delete from _migrations where name = '9701-tag.sql'",
    );
    const one = (method: 'GET' | 'POST' = 'GET') =>
      ask(method, '/migrations/drift', method === 'POST' ? {} : undefined, {}, { tenant: restored.slug });
    const behind = (drift: string) => ({ tenant: restored.slug, object: 'migrations', drift });
    const taken = behind(
      'are at 9000-notes, and the catalog takes them for 9701-tag: `npm run tenants -- migrate drift --correct` tells it, then `migrate run` brings the rest',
    );
    // Looking changes nothing, however often.
    for (let time = 0; time < 2; time += 1) expect((await one()).body.drifts).toContainEqual(taken);
    expect((await ask('POST', '/migrations/plan', {})).body.total).toBe(0);
    expect((await one('POST')).body.drifts).toContainEqual(
      behind(
        'are at 9000-notes, and the catalog took them for 9701-tag: `npm run tenants -- migrate run` brings the rest',
      ),
    );
    const again = await ask('POST', '/migrations', {});
    expect(await carryOut(again.body.operation.id)).toBe('SUCCEEDED');
    expect((await one()).body.drifts).toEqual([]);
    // One that has more than the release is not behind it.
    const own_ = release;
    release = { ...own_, home: own_.home.slice(0, -1) };
    const ahead = (await one('POST')).body.drifts as { object: string; drift: string }[];
    expect(ahead).toContainEqual({
      tenant: restored.slug,
      object: 'migration 9701-tag.sql',
      drift: 'was applied, and is not in this release',
    });
    expect(ahead.map(({ object }) => object)).not.toContain('migrations');
    release = own_;
    // Looking leaves nothing behind.
    const left = await it_.world.asProvisioner(own.a, (connection) =>
      connection.query("select nspname from pg_namespace where nspname like 'reference%'"),
    );
    expect(left.rows).toEqual([]);
  });
});
