import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../../functions/lib/database/connect.ts';
import { tenantsDatabase } from '../../functions/lib/migrations/install.ts';
import { parseMigration } from '../../functions/lib/migrations/migration-file.ts';
import type { Attack } from '../../infra/local/prove/attack.ts';
import { reading } from '../../infra/local/prove/corpus/reading.ts';
import { rights } from '../../infra/local/prove/corpus/rights.ts';
import { writing } from '../../infra/local/prove/corpus/writing.ts';
import { letIn } from '../../infra/local/prove/intruders.ts';
import {
  closeTargets,
  type Finding,
  prepareTargets,
  prove,
  type Target,
} from '../../infra/local/prove/prove.ts';
import { json, table } from '../../infra/local/prove/report.ts';
import type { Victim } from '../../infra/local/prove/victim.ts';
import { migrate } from '../lib/migrations/target.ts';
import { startWorld, strategies, type World } from '../support/world.ts';
import { partyOf, startAttackedWorld } from './support.ts';

describe('npm run prove', () => {
  let world: World;
  let findings: Finding[];
  let targets: Target[];
  let tables: Record<string, readonly string[]>;
  let before: unknown[];
  beforeAll(async () => {
    world = await startAttackedWorld();
    before = await traces();
    const { keys } = world.plane;
    const victims = await Promise.all(
      strategies.map((strategy) => partyOf(world, world.tenants[strategy].b)),
    );
    targets = await prepareTargets(keys, victims);
    tables = Object.fromEntries(
      targets.map(({ party, tables, views }) => [party.name, [...tables, ...views]]),
    );
    const intruders = await letIn(world.plane);
    try {
      findings = await prove({
        keys,
        attackers: intruders.parties,
        targets,
        themes: [reading, writing, rights],
      });
    } finally {
      await closeTargets(targets);
      await intruders.remove();
    }
  });
  afterAll(() => world?.close());

  /** What an intruder might leave behind. */
  async function traces(): Promise<unknown[]> {
    return world.asProvisioner(world.tenants.rls.a, async (connection) => {
      const { rows } = await connection.query(
        `select 'role' as kind, rolname::text as name from pg_roles union all select 'schema', nspname from pg_namespace
         union all select 'database', datname from pg_database
         union all select 'policy', concat(polname, ' of ', polrelid::regclass) from pg_policy
         union all select 'default privileges', defaclrole::regrole::text from pg_default_acl order by 1, 2`,
      );
      return rows;
    });
  }

  it('attacks every table of every strategy, those of an adopter included', () => {
    for (const strategy of strategies)
      expect(tables[`${strategy}-b`]).toEqual(
        expect.arrayContaining(['canaries', 'canary_words', 'notes', 'tenancy_probe']),
      );
    const copies = findings.filter(({ attack }) => attack === 'COPY to the client');
    // Each by whoever is in its database, or, where it has one to itself, by an intruder of its own kind.
    const near = [...strategies, 'rls', 'schema'].flatMap((strategy) => tables[`${strategy}-b`]!);
    // One of them in the two other ways, and from other databases.
    expect(copies).toHaveLength(near.length + 3 * 2 + 4);
    const onView = findings.filter(({ table }) => table === 'canary_words');
    expect(new Set(onView.map(({ theme }) => theme))).toEqual(new Set(['Reading rows']));
  });

  it('finds that all held, and says so to people and to programs', () => {
    const withoutRows = { 'rls-b': ['bare', 'hollow'], 'schema-b': [], 'database-b': [] };
    const report = { url: 'http://127.0.0.1:8080/mcp', tables, withoutRows, findings };
    expect(table(report)).toMatch(
      /Attacked in vain.*npm run tenants -- import.*\n {2}rls-b: bare, hollow\nNot tried/,
    );
    expect(findings.filter(({ outcome }) => outcome !== 'held')).toEqual([]);
    expect(table(report)).toContain(`All ${findings.length} attempts`);
    expect(JSON.parse(json(report))).toMatchObject({
      tried: findings.length,
      held: findings.length,
      leaked: 0,
    });
    // No connection, password or context is part of it.
    expect(json(report)).not.toMatch(/endpoint|password":|v1\.k1/);
  });

  it('names what leaked', () => {
    const [first] = findings;
    const leak = { ...first!, outcome: 'leaked' as const, what: 'it saw a value of rls-b' };
    const report = { url: '', tables, withoutRows: tables, findings: [leak] };
    expect(table(report)).toMatch(
      new RegExp(`LEAKED, 1 of 1 attempts:\n.*${first!.attack}.*on ${first!.table}.*it saw a value`),
    );
    expect(JSON.parse(json(report))).toMatchObject({ leaked: 1 });
  });

  it('takes no value of a row that it sent itself for a leak, however an error writes it', async () => {
    const { keys } = world.plane;
    const targets = await prepareTargets(keys, [await partyOf(world, world.tenants.schema.b)]);
    try {
      const findings = await prove({
        keys,
        attackers: [await partyOf(world, world.tenants.schema.a)],
        targets: targets.map((target) => ({ ...target, tables: ['canaries'] })),
        themes: [
          {
            ...writing,
            attacks: writing.attacks.filter(({ name }) => name.startsWith('a row of the victim')),
          },
        ],
      });
      expect(findings.map(({ outcome, what }) => what ?? outcome)).toEqual(['held', 'held', 'held']);
    } finally {
      await closeTargets(targets);
    }
  });

  it('takes locks that one attacker holds for a moment for no doing of another', async () => {
    const { keys } = world.plane;
    const { rls, schema } = world.tenants;
    const targets = await prepareTargets(keys, [await partyOf(world, rls.b)]);
    const [near, beside] = [await partyOf(world, rls.a), await partyOf(world, schema.a)];
    let tried = 0;
    const triedBefore: number[] = [];
    const dropsOwned = {
      name: 'takes the guard of each table for a second',
      from: 'session',
      alone: true,
      sql: ({ own }) => {
        triedBefore.push(tried);
        return own.schema === near.schema
          ? ['begin', 'drop owned by current_user cascade', 'select pg_sleep(1)', 'rollback']
          : ['select 1'];
      },
    } as const satisfies Attack;
    const looks = { name: 'is there', sql: () => ['select pg_sleep(0.1)'] } as const satisfies Attack;
    try {
      const findings = await prove({
        keys,
        attackers: [near, beside],
        targets,
        themes: [{ title: 'Standing in the way', attacks: [dropsOwned, looks] }],
        onTried: () => {
          tried += 1;
        },
      });
      expect(findings.map(({ outcome, what }) => what ?? outcome)).toEqual(findings.map(() => 'held'));
      // The neighbour's three ways and the one from beside, of either attack.
      expect(findings).toHaveLength(8);
      expect(triedBefore.slice(-4)).toEqual([4, 5, 6, 7]);
    } finally {
      await closeTargets(targets);
    }
  });

  it('notices a view through which everybody reads, and says which', async () => {
    const { keys } = world.plane;
    const [intruder, owner] = [await partyOf(world, world.tenants.rls.a), world.superuser(tenantsDatabase)];
    const change = (text: string) => withConnection(owner, (connection) => connection.query(text));
    await change(
      'alter view shared.canary_words set (security_invoker = false); alter view shared.canary_words owner to current_user',
    );
    try {
      const [target] = await prepareTargets(keys, [await partyOf(world, world.tenants.rls.b)]);
      const found = await prove({ keys, attackers: [intruder], targets: [target!], themes: [reading] });
      const leaks = found.filter(({ outcome }) => outcome === 'leaked');
      // Elsewhere too: through it the attacker's own rows are among the victim's.
      expect(leaks.map(({ table }) => table)).toContain('canary_words');
      await closeTargets([target!]);
    } finally {
      await change(
        'alter view shared.canary_words owner to tenancy_owner; alter view shared.canary_words set (security_invoker = true)',
      );
    }
  });

  it('leaves nothing behind', async () => {
    expect(await traces()).toEqual(before);
  });
});

describe('over a schema of many tables, which build on an extension', () => {
  let world: World;
  beforeAll(async () => {
    world = await startWorld({ extensions: ['citext'] });
  });
  afterAll(() => world?.close());

  it('looks at more tables than PostgreSQL takes arguments for a function, but not at all of them every time', async () => {
    const tenant = world.tenants.schema.b;
    const made = Array.from(
      { length: 120 },
      (_, number) =>
        `create table many_${number} (tenant_id uuid not null, id int, primary key (tenant_id, id))`,
    );
    await migrate(world, tenant, [parseMigration('9100-many.sql', made.join(';'))]);
    const [target] = await prepareTargets(world.plane.keys, [await partyOf(world, tenant)]);
    const { tables, victim } = target!;
    try {
      expect(tables.length).toBeGreaterThan(120);
      let looks = 0;
      const counting: Victim = {
        ...victim,
        blocked: (names = tables) => {
          looks += names.length;
          return victim.blocked(names);
        },
      };
      const copies = reading.attacks.filter(({ name }) => name === 'COPY to the client');
      const findings = await prove({
        keys: world.plane.keys,
        attackers: [await partyOf(world, world.tenants.rls.a)],
        targets: [{ ...target!, victim: counting }],
        themes: [{ ...reading, attacks: copies }],
      });
      expect(findings.map(({ outcome }) => outcome)).toEqual(tables.map(() => 'held'));
      // At all of them with the last, at one with each of the others.
      expect(looks).toBe(tables.length + tables.length - 1);
      const alone = await prove({
        keys: world.plane.keys,
        attackers: [await partyOf(world, world.tenants.rls.a)],
        targets: [target!],
        themes: [reading],
        only: ['many_1'],
      });
      expect(new Set(alone.map(({ table }) => table))).toEqual(new Set(['many_1']));

      await world.database(tenant).query('insert into many_1 (id) values (1)');
      expect(await victim.harm(['many_0'])).toBeUndefined();
      expect(await victim.harm(['many_1'])).toBe('its rows are not what they were: many_1');
      expect(await victim.harm()).toBe('its rows are not what they were: many_1');
    } finally {
      await victim.close();
    }
  });

  it('gives its intruder’s own database the extensions that the others have', async () => {
    const intruders = await letIn(world.plane);
    try {
      const { database } = intruders.parties.find(({ strategy }) => strategy === 'database')!;
      const found = await withConnection(world.superuser(database), (connection) =>
        connection.query("select from pg_extension where extname = 'citext'"),
      );
      expect(found.rowCount).toBe(1);
    } finally {
      await intruders.remove();
    }
  });
});

describe('the command', () => {
  const run = (args: string[], folder: string) =>
    new Promise<{ code: number | null; said: string }>((resolve) => {
      const main = fileURLToPath(new URL('../../infra/local/prove/main.ts', import.meta.url));
      const child = spawn(process.execPath, [main, ...args], {
        env: { ...process.env, TENANTRY_STATE: folder },
      });
      let said = '';
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        said += text;
      });
      child.once('close', (code) => resolve({ code, said }));
    });

  it('ends with 4 and the remedy when nothing runs, with 2 and the usage when misused', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'tenantry-prove-'));
    try {
      const missing = await run([], folder);
      expect([missing.code, missing.said]).toEqual([4, expect.stringContaining('npm start')]);
      const misused = await run(['--frob'], folder);
      expect([misused.code, misused.said]).toEqual([2, expect.stringContaining('Usage: npm run prove')]);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
