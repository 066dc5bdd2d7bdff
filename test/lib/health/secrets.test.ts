import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RetryableError } from '../../../functions/lib/errors.ts';
import { summaryOf } from '../../../functions/lib/health/tell.ts';
import type { Watch } from '../../../functions/lib/health/watch.ts';
import { tenantSecretName } from '../../../functions/lib/isolation/credentials.ts';
import { startWorld, type TestTenant, type World } from '../../support/world.ts';
import { runOnce, startWatching, told } from './support.ts';

/** What stands in a tenant's secret: its new connections hang on it, and nobody else's. */
let world: World;
let watch: Watch;
beforeAll(async () => {
  world = await startWorld();
  watch = await startWatching(world);
});
afterAll(() => world?.close());

type Content = Record<string, unknown>;
const nameOf = ({ id }: TestTenant) => tenantSecretName(id);
const contentOf = async (name: string): Promise<Content> => JSON.parse(await world.secrets.read(name, true));
const hidden = 'hunter2-hunter2';

const ways: readonly [string, (known: Content, neighbours: Content) => string, string][] = [
  [
    'another password',
    (known) => JSON.stringify({ ...known, password: hidden }),
    'has a password that its login is refused with',
  ],
  ['no password', ({ password: _, ...rest }) => JSON.stringify(rest), 'has no password'],
  ['no text that anybody knows', ({ password }) => `${hidden} ${password}`, "can't be used"],
  ['no object', () => JSON.stringify(hidden), "can't be used"],
  ['no host', ({ host: _, ...rest }) => JSON.stringify(rest), "can't be used"],
  ['no database', ({ dbname: _, ...rest }) => JSON.stringify(rest), "can't be used"],
  ['no login', ({ username: _, ...rest }) => JSON.stringify(rest), "can't be used"],
  ['a port that is none', (known) => JSON.stringify({ ...known, port: hidden }), "can't be used"],
  ['another engine', (known) => JSON.stringify({ ...known, engine: hidden }), "can't be used"],
  [
    'another host',
    (known) => JSON.stringify({ ...known, host: hidden }),
    'has another host than the catalog',
  ],
  [
    'its neighbour’s database',
    (known, { dbname }) => JSON.stringify({ ...known, dbname }),
    'has another dbname than the catalog',
  ],
  [
    'its neighbour’s secret',
    (_, neighbours) => JSON.stringify(neighbours),
    'has another dbname, username than the catalog',
  ],
];

describe('a tenant’s secret', () => {
  it.each(ways)('with %s is named by the next run, and its content nowhere', async (_, wreck, text) => {
    const { a, b } = world.tenants.database;
    const name = nameOf(a);
    const known = await contentOf(name);
    const neighbours = await contentOf(nameOf(b));
    await world.secrets.write(name, wreck(known, neighbours));
    const run = await runOnce(watch).finally(() => world.secrets.write(name, JSON.stringify(known)));
    expect(told(run)).toEqual([expect.stringContaining(`secrets: secret ${name} of ${a.slug} `)]);
    expect(told(run)[0]).toContain(text);
    expect(told(run)[0]).toMatch(/: new connections fail$/);
    expect(run.state).toBe('degraded');
    expect(Object.entries(run.report.checks).filter(([, verdict]) => verdict === 'red')).toEqual([
      ['secrets', 'red'],
    ]);
    const kept = await world.asProvisioner('catalog', (catalog) =>
      catalog.query<{ text: string }>('select r::text as text from catalog.health_runs r'),
    );
    const everything = JSON.stringify([run, summaryOf(run), kept.rows]);
    for (const secret of [hidden, known.password, neighbours.password])
      expect(everything).not.toContain(secret);
  });

  it('is told no more when it is right again', async () => {
    expect(told(await runOnce(watch))).toEqual([]);
  });

  it('that can’t be read is told, and nothing else is left undone', async () => {
    const away: Watch = {
      ...watch,
      plane: {
        ...watch.plane,
        secrets: {
          ...watch.plane.secrets,
          find: () => Promise.reject(new RetryableError('unavailable', 'A credential could not be read.', 2)),
        },
      },
    };
    const run = await runOnce(away);
    expect(run.state).toBe('degraded');
    expect(
      told(run).every((line) => /^secrets: secret \S+ of \S+ can't be used \(A credential/.test(line)),
    ).toBe(true);
    expect(told(run).length).toBeGreaterThan(0);
  });
});

describe('a canary’s own secret', () => {
  it('keeps its walls from being tried: a doubt in the third run, and no other part of one', async () => {
    const { rows } = await world.asProvisioner('catalog', (catalog) =>
      catalog.query<{ tenant: TestTenant['id'] }>(
        "select tenant_id as tenant from catalog.tenants where slug = 'canary-database-a'",
      ),
    );
    const name = tenantSecretName(rows[0]!.tenant);
    const known = await contentOf(name);
    await world.secrets.write(name, hidden);
    try {
      for (const state of ['degraded', 'degraded', 'broken']) {
        const run = await runOnce(watch);
        expect(run.state, told(run).join('\n')).toBe(state);
        expect(told(run).join('\n')).toContain(`secrets: secret ${name} of canary-database-a can't be used`);
        expect(told(run).join('\n')).toContain('unfinished: the canaries of database could not be checked');
        expect(told(run).filter((line) => !/database|^public_url/.test(line))).toEqual([]);
      }
    } finally {
      await world.secrets.write(name, JSON.stringify(known));
    }
    expect(told(await runOnce(watch))).toEqual([]);
  });
});
